"""Names of speakers before what they say: `JOHN: Stop!`, as in subtitles for the deaf."""

import re
from collections.abc import Iterable

_NAMED = re.compile(r"^([^:\uff1a]{2,40}?)\s*:\s+(?=\S)")
_SMALL_PART = re.compile(r"^(?:Mc|Mac|O'|D'|d'|de|du|van|von|la|le)(?=[^a-z])|^#?\d+(?:st|nd|rd|th)$")
_NAME_WORD = re.compile(r"#?\w[\w.,'\u2019&/-]*|&|/")
_LONGEST_NAME, _LONGEST_ROLE = 3, 5  # words beside numbers
_ROLES = frozenset(
    """
    MAN WOMAN BOY GIRL VOICE NARRATOR ANNOUNCER REPORTER OFFICER DOCTOR NURSE CHILD KID BABY CROWD DRIVER GUARD SOLDIER
    WAITER WAITRESS TEACHER COP JUDGE HOST ANCHOR CALLER SPEAKER INTERVIEWER OPERATOR DISPATCHER MALE FEMALE
    HOMME FEMME MANN FRAU HOMBRE MUJER UOMO DONNA
    """.split()  # noqa: SIM905
)
_NO_NAMES = frozenset(  # who names nobody, words of saying, and what announces words
    """
    I YOU HE SHE IT WE THEY ME HIM US THEM MY YOUR HIS ITS OUR THEIR THIS THAT THESE THOSE WHO WHAT WHICH WHERE WHEN WHY
    HOW AM IS ARE WAS WERE BE BEEN HAS HAVE HAD DO DOES DID WILL WOULD CAN COULD SHALL SHOULD MAY MUST SAY SAYS SAID
    TELL TOLD ASK ASKED KNOW KNEW REMEMBER LISTEN LOOK WARNING NOTE NOTICE ATTENTION CAUTION DANGER PS FYI ANSWER
    QUESTION ONE TWO THREE THING THINGS NOT NO YES IF OR BUT SO THEN NOW TODAY TONIGHT NEVER ALWAYS ONLY JUST NEXT LAST
    FIRST FINALLY PLEASE RULE FACT STEP PART CHAPTER EPISODE SCENE TIME PLACE DATE UPDATE NEWS REASON EXAMPLE MEANING
    RESULT PLAN OPTION TRUTH PROBLEM MESSAGE HERE THERE OK OKAY STOP GO WAIT AND FOR WITH FROM TO IN ON OF AT
    ICH ER SIE WIR IHR ES DAS WAS WER EINS SAGTE SAGT ACHTUNG JE TU IL ELLE NOUS VOUS ILS ELLES DIT CE CELA
    YO ELLA NOSOTROS ELLOS DIJO DICE ESTO ATENCIÓN IO LUI LEI NOI VOI LORO HA DETTO ATTENZIONE EU ELE ELA DISSE
    Я ТЫ ОН ОНА МЫ ВЫ ОНИ ЭТО СКАЗАЛ СКАЗАЛА ВНИМАНИЕ
    """.split()  # noqa: RUF001, SIM905
)
_BESIDE_NAMES = {"AND", "OF"}
_BESIDE_ROLES = _BESIDE_NAMES | set("ONE TWO THREE FIRST LAST ON IN FROM WITH FOR TO AT NEWS".split())  # noqa: SIM905
_IN_CAPITALS = 0.9  # share of capitals among a file's letters from which capitals mark nobody


def in_capitals(lines: Iterable[str]) -> bool:
    """Whether lines are written in capitals throughout, so that capitals mark no speaker."""
    upper = cased = 0
    for line in lines:
        words = _NAMED.sub("", line)
        upper += sum(letter.isupper() for letter in words)
        cased += sum(letter.isupper() or letter.islower() for letter in words)
    return cased > 0 and upper >= _IN_CAPITALS * cased


def speaker_before(text: str, capitals: bool, marked: bool = False) -> str:
    """The name of a speaker at the beginning of a turn with its colon, "" where none stands.

    A name is some words in capitals that name somebody: no pronoun, no verb. Args: capitals: whether all is written in
    capitals; then only roles with a number or the like (`MAN #2:`) are taken for names. marked: whether chevrons said
    that somebody begins to speak (`>> JOHN: yes`), in capitals or with a small letter.
    """
    found = _NAMED.match(text)
    if not found:
        return ""
    words = found[1].split()
    lettered = [word for word in words if not re.match(r"#?\d", word) and any(map(str.isalpha, word))]
    if not all(map(_in_name, words)) or sum(map(len, lettered)) < 2:
        return ""
    plain = {re.sub(r"[.,'\u2019]", "", word).upper() for word in words}
    role = not _ROLES.isdisjoint(plain)
    if (plain & _NO_NAMES) - (_BESIDE_ROLES if role else _BESIDE_NAMES):
        return ""
    if capitals and not marked:
        return found[0] if role and len(lettered) == 1 else ""
    if not role and not marked and text[found.end()].islower():
        return ""  # `DNA TEST: negative`; who speaks begins a sentence
    return found[0] if len(lettered) <= (_LONGEST_ROLE if role else _LONGEST_NAME) else ""


def _in_name(word: str) -> bool:
    """Whether a word may stand in a name in capitals: `ÉLODIE`, `McCOY`, `#2`, `1ST`."""
    return bool(_NAME_WORD.fullmatch(word)) and not any(map(str.islower, _SMALL_PART.sub("", word)))
