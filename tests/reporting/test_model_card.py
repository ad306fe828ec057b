from mskjax.reporting import model_card


def leaves(content):
    if isinstance(content, dict):
        return [leaf for value in content.values() for leaf in leaves(value)]
    if isinstance(content, list):
        return [leaf for value in content for leaf in leaves(value)]
    return [content]


def test_every_heading_says_something(report):
    card = model_card.content(report)
    assert list(card) == ["Model details", "Intended use", "Factors", "Metrics",
                          "Training and evaluation data", "Quantitative analyses",
                          "Ethical considerations", "Caveats and recommendations"]  # fmt: skip
    assert all(isinstance(leaf, str) and leaf for leaf in leaves(card))
    assert model_card.RESEARCH in card["Intended use"]
    assert any(model_card.UNKNOWN.lower() in leaf for leaf in card["Ethical considerations"])


def test_a_phantom_is_called_one(phantom_report):
    card = model_card.content(phantom_report)
    assert "PHANTOM" in card["Training and evaluation data"]["Cohort"]
    assert card["Ethical considerations"] == [
        "The images are generated; no person's data were used."
    ]


def test_the_contract_alone_makes_a_card(required):
    assert model_card.content(required)["Quantitative analyses"] == "none"
