"""In which order layers get fewer or more bits."""


def narrowing(rows):
    """Lists the paths of the layers that can have 4 bits, the one first that costs least error for each byte that it saves.

    Errors of layers add up by their squares, as they are nearly independent.

    Args:
        rows: `LayerBits`.
    """
    able = [row for row in rows if row.error_4_bits is not None and row.bytes_4_bits < row.bytes_8_bits]
    return [row.name for row in sorted(able, key=lambda row: cost_of_narrowing(row) / (row.bytes_8_bits - row.bytes_4_bits))]


def widening(rows, least_bytes=64):
    """Lists the paths of the layers that win something at 16 bits, the one first that wins most error for each byte that it costs.

    Args:
        rows: `LayerBits`.
        least_bytes: What a wide layer takes at least, for its scales and operations.
    """
    able = [row for row in rows if row.error_16_bits is not None and gain_of_widening(row) > 0]
    return [row.name for row in sorted(able, key=lambda row: -gain_of_widening(row) / (row.bytes_16_bits - row.bytes_8_bits + least_bytes))]


def cost_of_narrowing(row):
    """Returns by how much the square of the error grows with 4 bits."""
    return row.error_4_bits**2 - row.error_8_bits**2


def gain_of_widening(row):
    """Returns by how much the square of the error shrinks with 16 bits."""
    return row.error_8_bits**2 - row.error_16_bits**2
