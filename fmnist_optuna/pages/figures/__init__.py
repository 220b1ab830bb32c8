"""The figures of a study as plotly graph objects, one in each module: a report shows them, a dashboard keeps them."""
