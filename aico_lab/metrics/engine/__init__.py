"""How metrics are declared, asked, measured, worded and drawn."""
