"""How each class of layer and operation passes channels on, reads and writes them."""
