"""Workers: one attempt at one cell, the loop around it, the processes and who supervises them."""
