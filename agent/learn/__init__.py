"""Which cable goes where, found by experiment: outlets are switched, and all that can be heard is written down."""
