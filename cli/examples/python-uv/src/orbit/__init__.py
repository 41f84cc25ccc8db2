"""How long a body takes around its sun."""

import click


@click.command()
@click.argument("axis", type=float)
def main(axis: float) -> None:
    """Prints the years of an orbit whose axis is given in astronomical units."""
    click.echo(f"{axis ** 1.5:.3f}")
