"""The command ``fairactor worker``: runs the actors of a module in processes that it watches over."""
