"""Every page of the package has the one style, and what is put into a page is text."""

import jinja2
import pytest
from markupsafe import Markup

from paligemma.pages.templates import templates


@pytest.mark.parametrize(("folder", "name"), [("inspection", "page.html"), ("evaluation", "report.html")])
def test_pages_have_the_one_style(folder, name):
    source = templates(folder).loader.get_source(templates(folder), name)[0]
    assert '{% include "style.css" %}' in source
    assert "--accent:" not in source
    assert "--accent:" in templates(folder).get_template("style.css").render()


def test_what_is_put_in_is_text():
    given = templates("inspection").from_string("{{ one }}|{{ two }}").render(one="<b>\u202e", two=Markup("<i>"))
    assert given == "&lt;b&gt;\\u202e|<i>"
    with pytest.raises(jinja2.UndefinedError):
        templates("inspection").from_string("{{ missing }}").render()
