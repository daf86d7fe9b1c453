"""A Sphinx extension: formulas become MathML while the site is built.

Browsers draw MathML themselves, so a reader needs neither a network nor JavaScript.
"""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError


def convert(node: nodes.Node, as_block: bool) -> str:
    formula = node.astext()
    try:
        # A missing glyph is worse than a long line: the result has one element a line.
        return "".join(line.strip() for line in tex2mathml(formula, as_block).splitlines())
    except MathError as error:
        place = f"{node.document['source'] if node.document else '?'}, line {node.line}"
        raise ExtensionError(f"{place}: cannot convert {formula!r}: {error}") from error


def visit_inline(translator, node: nodes.math) -> None:
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{convert(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
