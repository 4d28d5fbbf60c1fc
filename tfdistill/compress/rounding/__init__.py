"""How weights are rounded: to the nearest step, or up or down as learned."""
