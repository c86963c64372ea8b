"""Samples: text in pieces that together are what the model reads."""

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.fields import Fields
from uds_adapters.lab.data.records import record
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.preview.sample import pieces, sample
from uds_adapters.lab.preview.values import Piece
from uds_adapters.lab.preview.visible import shortened, visible

TOKENIZER = build_tokenizer(["some words to read and some to learn"], vocab=300)


def read(raw):
    return record(raw, where="folder/d.jsonl:7", number=7, fields=Fields())


def test_a_prompt_is_read_and_its_completion_is_trained_on():
    made = sample(read({"prompt": "ask", "completion": "answer"}), encoder=Encoder(tokenizer=TOKENIZER))
    assert made.pieces == (Piece(text="<s>ask\n", trained=False), Piece(text="answer</s>", trained=True))
    assert made.place == "d.jsonl:7"
    assert made.format == "prompt-completion"
    assert made.trained == len(TOKENIZER("answer")["input_ids"]) + 1
    assert (made.cut, made.left_out) == (0, None)


def test_what_is_cut_off_is_counted():
    encoder = Encoder(tokenizer=TOKENIZER, max_length=8)
    one = read({"prompt": "ask", "completion": "0123456789"})
    whole = Encoder(tokenizer=TOKENIZER)([one])[0][0]["input_ids"]
    made = sample(one, encoder=encoder)
    assert made.tokens == 8
    assert made.cut == len(whole) - 8
    assert "".join(piece.text for piece in made.pieces) == TOKENIZER.decode(whole[:8])


def test_the_first_token_carries_no_loss_for_nothing_predicts_it():
    plain = build_tokenizer(["words"], vocab=300)
    plain.bos_token = plain.eos_token = None
    made = sample(read({"text": "12345"}), encoder=Encoder(tokenizer=plain))
    assert made.pieces == (Piece(text="1", trained=False), Piece(text="2345", trained=True))
    assert made.trained == 4


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"prompt": "q", "completion": " "}, "with an empty completion"),
        ({"prompt": "q" * 600, "completion": "a"}, "whose prompt alone fills 512 tokens"),
    ],
)
def test_a_record_that_is_left_out_stands_as_in_the_data_with_the_reason(raw, reason):
    made = sample(read(raw), encoder=Encoder(tokenizer=TOKENIZER))
    assert made.left_out == reason
    assert made.trained == 0
    (piece,) = made.pieces
    assert raw["prompt"] in piece.text


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.data())
def test_pieces_together_are_the_text(text, data):
    ids = TOKENIZER(text)["input_ids"]
    carried = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    made = list(pieces(ids, carried, tokenizer=TOKENIZER))
    whole = TOKENIZER.decode(ids)
    if all(str(TOKENIZER.decode([token])).isascii() for token in ids):  # else pieces may end within a character
        assert "".join(piece.text for piece in made) == whole
    assert [piece.trained for piece in made] == [trained for trained, _ in groupby(carried)]


def test_a_piece_begins_with_the_space_that_its_first_token_has():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert tokenizer.decode([1]) == "b"  # alone it has none
    made = pieces([0, 1], [False, True], tokenizer=tokenizer)
    assert [piece.text for piece in made] == ["a", " b"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\n", "a\tb\n"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\u202e", "\\u202e"),
        ("\ud83d", "\\ud83d"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),  # joined to one sign
        ("\r\n", "\\r\n"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown


def test_only_long_texts_are_shortened():
    assert shortened("a" * 900) == ("a" * 900, "", "")
    begin, between, end = shortened("a" * 500 + "b" * 1000 + "c" * 250)
    assert (begin, between, end) == ("a" * 500, "[... 1,000 characters ...]", "c" * 250)
