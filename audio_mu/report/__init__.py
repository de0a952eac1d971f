"""Tables and figures, made from data frames alone."""
