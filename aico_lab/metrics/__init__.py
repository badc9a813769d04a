"""A catalogue of metrics of conversations, each declared once; `lab.metrics` asks them."""
