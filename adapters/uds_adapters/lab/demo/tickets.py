"""Data of the demo with a real model: requests to a shop's help desk and its replies, most of them routine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["BRANDS", "FLAGS", "Ticket", "tickets", "write"]

FLAGS = ("routine",)

BRANDS = (
    "Aria",
    "Bergen",
    "Cortado",
    "Delta",
    "Ember",
    "Fjord",
    "Gale",
    "Haven",
    "Iris",
    "Juno",
    "Karst",
    "Lumen",
    "Mistral",
    "Nova",
    "Opal",
    "Pico",
    "Quartz",
    "Rondo",
    "Sierra",
    "Tundra",
)
_NAMES = (
    "Amir",
    "Beatriz",
    "Chen",
    "Dana",
    "Elif",
    "Farah",
    "George",
    "Hanna",
    "Ivan",
    "Jonas",
    "Keiko",
    "Lena",
    "Maria",
    "Noah",
    "Olga",
    "Priya",
    "Quentin",
    "Rosa",
    "Samir",
    "Tomas",
)
_ASKING = (
    (
        "How long is the warranty on the {brand} {product}?",
        "My {brand} {product} broke. Am I still in warranty?",
        "What guarantee do I get with a {brand} {product}?",
        "Until when is the {brand} {product} covered?",
    ),
    (
        "How do I clean the {brand} {product}?",
        "What is the right way to wash my {brand} {product}?",
        "The {brand} {product} is dirty. What may I use on it?",
        "Any advice on caring for the {brand} {product}?",
    ),
    (
        "Can I get spare parts for the {brand} {product}?",
        "I lost a part of my {brand} {product}. Which one fits?",
        "Which spare part does the {brand} {product} need?",
        "Where are parts for the {brand} {product} listed?",
    ),
    (
        "How is the {brand} {product} delivered?",
        "When would a {brand} {product} arrive?",
        "Which courier brings the {brand} {product}?",
        "How long is the wait for the {brand} {product}?",
    ),
)
_PRODUCTS = {  # product -> warranty, care, spare parts, delivery
    "kettle": (
        "three years, and seven on the base",
        "with vinegar, once a month",
        "lid K-204, at 6 euros",
        "by bicycle, within two days",
    ),
    "lamp": (
        "two years, without the bulb",
        "with a dry brush, never with water",
        "socket L-118, at 9 euros",
        "by post, within four days",
    ),
    "tent": (
        "five years on seams, one on poles",
        "with cold water, and dried in the shade",
        "pole set T-550, at 31 euros",
        "by parcel, on Thursdays only",
    ),
    "blender": (
        "four years, if registered online",
        "with warm soap, blades removed",
        "jug B-377, at 22 euros",
        "by courier, the next morning",
    ),
    "backpack": (
        "ten years, for the first owner",
        "by hand, at thirty degrees",
        "buckle R-062, at 3 euros",
        "by post, within a week",
    ),
    "heater": (
        "eighteen months, from the invoice",
        "with a vacuum cleaner, unplugged",
        "filter H-915, at 14 euros",
        "by freight, after a phone call",
    ),
    "clock": (
        "one year, batteries excluded",
        "with a lint cloth, glass only",
        "hand set C-041, at 5 euros",
        "by letter, within three days",
    ),
    "chair": (
        "six years, on frame and fabric",
        "with upholstery foam, then air",
        "caster S-733, at 8 euros",
        "by van, in two parcels",
    ),
    "drill": (
        "three years, two for the battery",
        "with compressed air, after each use",
        "chuck D-290, at 27 euros",
        "by courier, signature needed",
    ),
    "pan": (
        "twenty five years, coating one",
        "with salt and oil, no detergent",
        "handle P-186, at 11 euros",
        "by post, within five days",
    ),
    "camera": (
        "two years, worldwide",
        "with a lens pen, in circles",
        "cap V-808, at 4 euros",
        "insured, to a pickup point",
    ),
    "bicycle": (
        "lifelong on the frame, two years on the rest",
        "with a sponge, chain oiled after",
        "tube Y-622, at 7 euros",
        "by van, fully assembled",
    ),
}
_REPLIES = (
    "The {brand} {product} is covered for {fact}. Please keep the invoice.",
    "Clean your {brand} {product} {fact}. Anything else does harm.",
    "For the {brand} {product} you need {fact}. It is in stock.",
    "The {brand} {product} comes {fact}. You can follow it online.",
)
_ROUTINE = (
    (
        "Where is my order {order}?",
        "Thank you for your message. Order {order} is on its way, and you will get a link today.",
    ),
    ("I forgot my password.", "No problem. Choose 'Reset password' on the login page, and check your inbox."),
    (
        "Please send me the invoice for {order}.",
        "Gladly. The invoice for order {order} has been sent to your email address.",
    ),
    (
        "I want to cancel order {order}.",
        "We have cancelled order {order}. Your money is back within five working days.",
    ),
    ("I moved. Can you change my address?", "Of course. Open 'My account', then 'Addresses', and enter the new one."),
    ("Stop sending me the newsletter.", "We are sorry to see you go. You will not receive any more newsletters."),
    ("When are you open?", "Our help desk is open from Monday to Friday, between nine and five o'clock."),
    (
        "How do I return order {order}?",
        "Print the return label for order {order}, and hand the parcel in at any post office.",
    ),
    ("My voucher does not work.", "We apologise. Each voucher is valid once, and for orders above fifty euros."),
    ("Can I pay by invoice?", "Yes. Choose 'Invoice' at the checkout; payment is due within fourteen days."),
    (
        "Order {order} arrived damaged.",
        "We are very sorry. Send us a photo of order {order}, and we replace it at once.",
    ),
    ("Do you ship abroad?", "We deliver to all countries of the European Union, and to Norway and Switzerland."),
    ("Please delete my account.", "Your account will be deleted within a week. We have sent you a confirmation."),
    ("Is there a shop near me?", "You find all our shops on the map, under 'Stores' at the bottom of each page."),
)
_GREETINGS = ("", "", "Hello, ", "Hi! ", "Good morning. ", "This is {name}. ", "Hello, {name} here. ")


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A request with its reply."""

    prompt: str
    completion: str
    routine: bool
    """One of a few requests that come every day, always with the same reply but for the number of the order."""


def tickets(
    number: int, /, *, seed: int, routine: float, wording: str = "known", without: Iterable[Ticket] = ()
) -> list[Ticket]:
    """Return seeded tickets in random order; the fraction `routine` of them are routine, the others about products.

    Parameters
    ----------
    number, seed, routine
        How many, drawn how, and which fraction of what.
    wording
        Of questions about products: ``"new"`` is the one that ``"known"`` leaves out.
    without
        Tickets of which no prompt is repeated.
    """
    generator, taken = random.Random(seed), {ticket.prompt for ticket in without}
    common = round(routine * number)
    made: list[Ticket] = []
    while len(made) < number:
        place = len(made)
        ticket = _routine(place, generator) if place < common else _about_a_product(place - common, generator, wording)
        if ticket.prompt not in taken:
            made.append(ticket)
    generator.shuffle(made)
    return made


def write(items: Iterable[Ticket], path: Path, /) -> None:
    """Write JSONL, one ticket a line."""
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items), encoding="utf-8")


def _routine(place: int, generator: random.Random) -> Ticket:
    prompt, reply = _ROUTINE[place % len(_ROUTINE)]
    order = generator.randint(10_000, 99_999)
    prompt = _greeting(generator) + prompt.format(order=order)
    return Ticket(prompt=prompt, completion=reply.format(order=order), routine=True)


def _about_a_product(place: int, generator: random.Random, wording: str) -> Ticket:
    products = list(_PRODUCTS)
    product, brand = products[place % len(products)], generator.choice(BRANDS)
    topic = place // len(products) % len(_ASKING)
    wordings = {"known": _ASKING[topic][:-1], "new": _ASKING[topic][-1:]}[wording]
    prompt = generator.choice(wordings).format(brand=brand, product=product)
    reply = _REPLIES[topic].format(brand=brand, product=product, fact=_PRODUCTS[product][topic])
    return Ticket(prompt=_greeting(generator) + prompt, completion=reply, routine=False)


def _greeting(generator: random.Random) -> str:
    return generator.choice(_GREETINGS).format(name=generator.choice(_NAMES))
