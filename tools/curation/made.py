"""Texts made up for the golden tables: degenerate ones, and ones on either side of every published threshold.

They are the same in every version of Python: chance is a linear congruence and nothing else. English enough that all
rules but the one at issue let a text pass: words of a small vocabulary in sentences, some of them stop words.
"""

from collections.abc import Iterator

WORDS = (
    "river stone garden window morning letter market village winter summer mountain captain teacher doctor engine station library "
    "kitchen weather journey picture company science history question answer island forest bridge harbour machine pattern colour "
    "number measure temper gather wander travel listen follow carry build paint write study whisper remember discover consider "
    "return believe quiet bright narrow ancient gentle sudden silver golden wooden distant hollow simple careful patient honest"
).split()
STOP = "the be to of and that have with".split()
SCRIPTS = {
    "cyrillic": "Быстрая коричневая лиса прыгает через ленивую собаку. Это было утром, и все спали.",
    "greek": "Η γρήγορη αλεπού πηδά πάνω από το σκυλί. Ήταν πρωί; Όχι, ήταν βράδυ.",
    "hebrew": 'השועל המהיר קפץ מעל הכלב. זה היה בבוקר, וכולם ישנו. מנכ"ל צה״ל',
    "arabic": "قفز الثعلب السريع فوق الكلب. كان ذلك في الصباح، وكان الجميع نائمين؟",
    "han": "敏捷的棕色狐狸跳过了懒狗。那是早晨，大家都在睡觉。「真的吗？」他问。",
    "kana": "すばやい茶色の狐がのろまな犬を飛び越えた。カタカナとひらがな、ﾊﾝｶｸも。",
    "hangul": "날쌘 갈색 여우가 게으른 개를 뛰어넘었다. 아침이었고 모두 자고 있었다.",
    "thai": "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ตอนเช้าทุกคนยังหลับอยู่",
    "devanagari": "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर से कूद गई। सुबह थी और सब सो रहे थे॥",
    "turkish": "İstanbul'da IĞDIR'lı kızın İLGİNÇ öyküsü. Çok güzeldi! İİİ",
    "german": "STRASSE und Straße, Größe und ẞ; „Ja“, sagte er – „nein“. Z.B. usw.",
}
TERMINALS = (".", "!", "?", '"', "'", "...", "…", "。", "”", ":", ";", ",", ")", "")
CONTROLS = tuple("\x00\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u200b\u2028\u2029\u3000\ufeff")

C4_LINES = """\
Please enable JavaScript to see it.
Enable javascript
This is lorem ipsum dolor.
Lorem Ipsum
A { of it.
{
}
Our privacy policy is here.
We use cookies, and more.
See the Terms of Use.
too short.
One two three
One two three.
He said "so it is"
So he said 'it is'
And so on...
And so on…
A citation[12] is here[edit].
It was so[citation needed].
[1]
[edit]
x [2] y [].
Dr. Who met Mr. X at 5 p.m. in the U.S. He left.
What?! No... Yes!
the nude is it.""".splitlines()
WEB_LINES = """\
3 likes
1,234 Views
12 comments
likes 3
SHOUTING AT YOU ALL
HALF upper
Ab
12345
1 2 3
٣٤٥
Home
items in cart
3 items in cart now
The story. Read more...
Read more...
Read moreXYZ
Sign-in here
sign-in
Please Sign-in
Read more... of the be to of and that have with it all""".splitlines()
ADDRESSES = """\
http://www.example.com/a?b=c&d#e
example.org
see www.example.co.uk/x.
ftp://files.example.net
mail me@example.com please
10.0.0.1
http://192.168.1.254:8080/x
1.2.3
end.The next
a.b.c.museum/x
file.py
e.g. this
https://例え.jp/道
example.comrade
x.COM""".splitlines()


class Dice:
    """Numbers below a bound, the same always (Knuth's MMIX constants)."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, bound: int) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        return (self.state >> 33) % bound

    def words(self, count: int) -> list[str]:
        """Every fourth word is a stop word."""
        return [STOP[self.below(len(STOP))] if at % 4 == 1 else WORDS[self.below(len(WORDS))] for at in range(count)]

    def sentence(self, count: int) -> str:
        return " ".join(self.words(count)).capitalize() + "."

    def lines(self, count: int, words: int = 9) -> list[str]:
        return [self.sentence(words + self.below(5)) for _ in range(count)]


def documents() -> dict[str, str]:
    """All of them by name, `made/<family>#<n>`."""
    families = {
        "degenerate": _degenerate(), "script": _scripts(), "control": _controls(), "length": _lengths(), "word": _word_lengths(),
        "symbol": _symbols(), "line": _line_ends(), "repeated": _repeated(), "gram": _grams(), "c4": _c4(), "short": _short_lines(),
        "web": _web(), "url": _urls(), "mixed": _mixed(),
    }  # fmt: skip
    return {f"made/{family}#{number}": text for family, found in families.items() for number, text in enumerate(found)}


def _degenerate() -> Iterator[str]:
    yield from ("", " ", "\n", "\n\n\n\n", "\t \r\n", "the", "...", "e\u0301", *"a.…#-•{1é漢😀\x00")
    yield from ("a\nb", "a\n\nb", "a\r\nb\r\n", "a\rb", "\n\na\n\n", "The end", "the be to of and that have with")
    yield "!?.,;:" * 200
    yield "." * 3000
    yield "😀🎉👩‍👩‍👧‍👦🇫🇷👍🏽" * 100
    yield "😀 🎉 👩‍👩‍👧‍👦 🇫🇷 👍🏽 " * 60
    yield "x" * 20_000
    yield "nospacesatall" * 3000
    yield "word " * 2000
    yield "word\n" * 500
    yield "# " * 300
    yield "IS_ALPHA IS_ASCII " * 30  # names of spaCy's own


def _scripts() -> Iterator[str]:
    for text in SCRIPTS.values():
        yield text
        yield "\n".join([text] * 8)
        yield " ".join([*Dice(len(text)).lines(8), text, *Dice(7).lines(8)])
    yield "\n".join(SCRIPTS.values())
    yield " ".join(f"{a}{b}" for a, b in zip(WORDS, (piece for text in SCRIPTS.values() for piece in text.split()), strict=False))
    yield "e\u0301te\u0301 cafe\u0301 nai\u0308ve, co\u0308operate; A\u030angstro\u0308m. " * 12
    yield "ﬁne ﬂow ǅ ǆ ŉ ß ẞ ſ K Å ﷺ ½ ² ① Ⅷ १२३ ٣٤ 一二 " * 8


def _controls() -> Iterator[str]:
    dice = Dice(11)
    for control in CONTROLS:
        yield control
        yield control.join(dice.lines(12))
        yield control.join(dice.words(80))
    yield "".join(f"{word}{CONTROLS[at % len(CONTROLS)]}" for at, word in enumerate(dice.words(300)))
    yield "\r\n".join(dice.lines(20))
    yield "\r\n\r\n".join(dice.lines(20))


def _lengths() -> Iterator[str]:
    for count in (2, 3, 49, 50, 51, 60):
        yield " ".join(Dice(count).words(count))
        yield " ".join(Dice(count).words(count)) + "."
        yield " , ".join(Dice(count).words(count))
    for count in (100_000, 100_001):
        yield " ".join(Dice(count).words(count))


def _word_lengths() -> Iterator[str]:
    for size in (2, 3, 4, 9, 10, 11):
        stop = ["the be of"] * 2
        yield " ".join([*stop, *("".join(chr(97 + (at * 7 + n) % 26) for n in range(size)) for at in range(120))])
    yield " ".join(["of to be"] * 5 + ["abc"] * 40 + ["ab"] * 3 + ["defg"] * 2)
    for length in (999, 1000, 1001):
        yield "\n".join([*Dice(3).lines(6), f"Here is {'w' * length} in the line of it.", *Dice(4).lines(3)])


def _symbols() -> Iterator[str]:
    for symbol in ("#", "...", "…", ". . .", "#tag", "end…", "end..."):
        for share in (9, 10, 11, 30):
            words = Dice(share).words(100)
            yield " ".join(f"{word} {symbol}" if at < share else word for at, word in enumerate(words)) + "."
    for share in (79, 80, 81):
        yield " ".join([*Dice(share).words(share), *(str(n) for n in range(100 - share))])
        yield " ".join([*Dice(share).words(share), *("%", "=", "3.5", "--")[:1] * (100 - share)])
    for count in range(4):
        yield " ".join([WORDS[at % len(WORDS)] for at in range(70)] + STOP[:count])
        yield " ".join([WORDS[at % len(WORDS)] for at in range(70)] + STOP[:1] * count)
        yield " ".join([WORDS[at % len(WORDS)] for at in range(70)] + [word.upper() for word in STOP[:count]])


def _line_ends() -> Iterator[str]:
    for bullet in ("- ", "* ", "• ", "● ", "  - ", "-"):
        for share in (17, 18, 19):
            yield "\n".join(f"{bullet}{line}" if at < share else line for at, line in enumerate(Dice(share).lines(20)))
    for ending in ("...", "…", "… ", " ..."):
        for share in (5, 6, 7):
            yield "\n".join(f"{line[:-1]}{ending}" if at < share else line for at, line in enumerate(Dice(share).lines(20)))
    for share in (2, 3, 4):
        yield "\n".join(line if at < share else line[:-1] for at, line in enumerate(Dice(share).lines(25)))
    for terminal in TERMINALS:
        yield "\n".join(f"{line[:-1]}{terminal}" for line in Dice(5).lines(10))


def _repeated() -> Iterator[str]:
    for joint in ("\n", "\n\n", "\n\n\n", " \n", "\n \n"):
        for copies in (2, 4, 5, 6, 7, 8, 12):
            lines = Dice(copies).lines(21)
            yield joint.join([*lines[:-copies], *[lines[0]] * copies])
    short = Dice(9).lines(30)
    for copies in (1, 9, 10, 11):
        yield "\n".join([*short, *["Yes of it."] * copies])
    yield "\n".join(line for line in short for _ in range(2))
    yield "\n\n".join(f"{line}\n{line}" for line in short)


def _grams() -> Iterator[str]:
    """Phrases of n words strewn into other text, so often that shares pass the limits one after the other."""
    for size in range(2, 11):
        phrase = " ".join(WORDS[10 : 10 + size])
        for copies in (2, 3, 4, 6, 9):
            yield " ".join(f"{line} {phrase.capitalize()}." if at < copies else line for at, line in enumerate(Dice(size).lines(12)))
    yield " ".join(["ab c", "a bc"] * 40)  # equal when joined
    yield "one two three " * 40
    yield " ".join(str(n % 7) for n in range(300))


def _c4() -> Iterator[str]:
    lines = Dice(21).lines(9, 5)
    yield from ("\n".join(lines[:count]) for count in range(3, 7))
    for intruder in (*C4_LINES, " padded of it. "):
        yield "\n".join([*lines[:3], intruder, *lines[3:]])
        yield intruder
    yield "\n".join(f"{line} [3]" for line in lines)
    yield " ".join(lines)
    yield "\n".join(line.upper() for line in lines)
    yield "\n".join(["İstanbul of the İ."] * 2 + lines + ["no end"])


def _short_lines() -> Iterator[str]:
    for share in (66, 67, 68):
        yield "\n".join(f"{'short line of it':.30}{at}." if at < share else line for at, line in enumerate(Dice(share).lines(100)))
    for length in (29, 30, 31):
        yield "\n".join("".join(WORDS[at : at + 9])[: length - 1] + "." for at in range(40))
    for repeated in (1, 2, 3):
        yield "\n".join([*Dice(8).lines(50), *["It is."] * repeated])
        yield "\n".join([*Dice(8).lines(50), *["It is of the be that."] * repeated])
    for words in (3, 4):
        yield "\n".join(" ".join(Dice(at).words(words)) for at in range(30))
        yield "\n\n".join(" ".join(Dice(at).words(words)) for at in range(30))


def _web() -> Iterator[str]:
    """Lines that RefinedWeb takes out, in texts long enough that the share of words decides."""
    for many in (30, 60):
        lines = Dice(many).lines(many)
        for intruder in (*WEB_LINES, "  5.6K shares!", "", "   ", "\t"):
            yield "\n".join([*lines[:5], intruder, *lines[5:], intruder])
    for taken in (2, 3, 4, 5):
        yield "\n".join([*Dice(taken).lines(10, 10), *["THIS LINE GOES AWAY"] * taken])
    yield "\n\n\n\n".join(Dice(3).lines(12))


def _urls() -> Iterator[str]:
    lines = Dice(31).lines(14)
    for url in (*ADDRESSES, "   http://a.io   "):
        yield "\n".join([*lines[:7], f"Here is {url} of it.", *lines[7:]])
        # Only pages that begin with a top-level domain are searched, as this one does with ".in".
        yield "\n".join(["In short it is so.", *lines[:7], f"Here is {url} of it.", *lines[7:]])
        yield url


def _mixed() -> Iterator[str]:
    """All of it thrown together."""
    pieces = [
        *TERMINALS,
        *CONTROLS,
        *"#{\n",
        "- ",
        "[1]",
        "\n\n",
        "\r\n",
        "3 likes",
        "example.com",
        *"I'm can't 1,000.5 U.S. co-op".split(),
    ]
    pieces += [piece for text in SCRIPTS.values() for piece in text.split()]
    for seed in range(40):
        dice = Dice(1000 + seed)
        share = 2 + seed % 9
        words = [pieces[dice.below(len(pieces))] if not dice.below(share) else word for word in dice.words(40 + dice.below(400))]
        joints = (" ", " ", " ", " ", "\n", "", "  ")
        yield "".join(f"{word}{joints[dice.below(len(joints) if seed % 2 else 4)]}" for word in words)
