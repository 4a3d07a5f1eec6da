"""One module per way of switching an outlet; each is imported when a controller of its kind is configured."""
