"""Draws rooflines as SVG."""

import html
import math

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 440, 290, 54, 42, 14, 14
COLORS = ("#2563a8", "#d9822b", "#1b7f4b", "#8a4fb0", "#b3392f", "#4c7d8c")


def roofline_drawing(roofs):
    """Draws intensity against multiply-accumulates in a second, both logarithmic: a roof for each type of numbers, a dot for each file, in the order of `COLORS`.

    Args:
        roofs: Dict of name -> `Roofline`, at least one.

    Returns:
        The drawing as a text.
    """
    found = list(roofs.values())
    left = math.floor(min(math.log10(roof.macs_per_byte) for roof in found) - 0.7)
    right = math.ceil(max(math.log10(max(roof.macs_per_byte, roof.peak_gmac_per_s / roof.peak_gbytes_per_s)) for roof in found) + 0.3)
    bottom = math.floor(min(math.log10(roof.gmac_per_s) for roof in found) - 0.3)
    top = math.ceil(max(math.log10(roof.peak_gmac_per_s) for roof in found) + 0.1)

    def x(intensity):
        return _LEFT + (math.log10(intensity) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(rate):
        return _HEIGHT - _BOTTOM - (math.log10(rate) - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='Roofline' font-size='13' fill='currentColor'>"
    ]
    for power in range(left, right + 1):
        parts.append(f"<path d='M{x(10.0**power):.1f} {_TOP}V{_HEIGHT - _BOTTOM}' stroke='currentColor' opacity='.12'/>")
        parts.append(
            f"<text x='{x(10.0**power):.1f}' y='{_HEIGHT - _BOTTOM + 17}' text-anchor='middle' opacity='.7'>{_power(power)}</text>"
        )
    for power in range(bottom, top + 1):
        parts.append(f"<path d='M{_LEFT} {y(10.0**power):.1f}H{_WIDTH - _RIGHT}' stroke='currentColor' opacity='.12'/>")
        parts.append(f"<text x='{_LEFT - 8}' y='{y(10.0**power) + 4:.1f}' text-anchor='end' opacity='.7'>{_power(power)}</text>")
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(roofs)}
    drawn = set()
    for roof in found:
        lines = (roof.compute_type, round(math.log10(roof.peak_gbytes_per_s), 1))
        if lines in drawn:
            continue
        drawn.add(lines)
        knee = roof.peak_gmac_per_s / roof.peak_gbytes_per_s
        start = max(10.0**left, 10.0**bottom / roof.peak_gbytes_per_s)
        path = f"M{x(start):.1f} {y(start * roof.peak_gbytes_per_s):.1f}L{x(knee):.1f} {y(roof.peak_gmac_per_s):.1f}H{_WIDTH - _RIGHT}"
        parts.append(f"<path d='{path}' fill='none' stroke='currentColor' stroke-width='1.6' opacity='.65'/>")
        label = f"{roof.compute_type}, {roof.peak_gmac_per_s:.3g} GMAC/s"
        parts.append(
            f"<text x='{_WIDTH - _RIGHT - 2}' y='{y(roof.peak_gmac_per_s) - 6:.1f}' text-anchor='end' opacity='.8'>{html.escape(label)}</text>"
        )
    for name, roof in roofs.items():
        at, height = x(roof.macs_per_byte), y(roof.gmac_per_s)
        parts.append(f"<path d='M{at:.1f} {height:.1f}V{y(roof.roof_gmac_per_s):.1f}' stroke='{colors[name]}' stroke-dasharray='3 4'/>")
        parts.append(f"<circle cx='{at:.1f}' cy='{height:.1f}' r='6' fill='{colors[name]}'><title>{html.escape(name)}</title></circle>")
    parts.append(
        f"<text x='{(_LEFT + _WIDTH - _RIGHT) / 2}' y='{_HEIGHT - 6}' text-anchor='middle' opacity='.8'>multiply-accumulates for each byte</text>"
    )
    parts.append(
        f"<text transform='translate(13 {(_HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)' text-anchor='middle' opacity='.8'>GMAC/s</text></svg>"
    )
    return "".join(parts)


def _power(power):
    return f"{10**power:,}" if 0 <= power <= 4 else f"{10.0**power:g}"
