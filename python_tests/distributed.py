"""Miniatures of corpora, laid out as they are distributed; media files are empty unless a maker is given."""

from pathlib import Path


def touch(path: Path, make=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if make:
        make(path)
    else:
        path.write_bytes(b"")
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def iemocap(folder: Path, sessions: int = 5) -> Path:
    """Each session one dialogue: both speakers angry, happy, excited, neutral, sad, frustrated, surprised and without
    majority."""
    labels = ("ang", "hap", "exc", "neu", "sad", "fru", "sur", "xxx")
    for k in range(1, sessions + 1):
        name, rated, said = f"Ses0{k}F_impro01", "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", ""
        for number, label in enumerate(labels):
            for order, speaker in enumerate("FM"):
                start = number + order / 2
                id = f"{name}_{speaker}{number:03}"
                rated += f"[{start:.4f} - {start + 0.5:.4f}]\t{id}\t{label}\t[2.5000, 2.5000, 2.5000]\n"
                rated += "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom 2;\t()\n"
                said += f"{id} [{start:08.4f}-{start + 0.5:08.4f}]: Red  blue {number}.\n"
        dialog = folder / f"Session{k}" / "dialog"
        write(dialog / "EmoEvaluation" / f"{name}.txt", rated)
        write(dialog / "EmoEvaluation" / "Categorical" / f"{name}_e2_cat.txt", f"{name}_F000 :Anger; ()\n")
        write(dialog / "transcriptions" / f"{name}.txt", said)
    return folder


def msp_improv(folder: Path) -> Path:
    """Six pairs; of each speaker four emotions and one utterance without majority in part S, one neutral in part R."""
    lines = ""
    for k in range(1, 7):
        for sex in "MF":
            for number, letter in enumerate("AHNSX"):
                lines += _rating(f"S0{number + 1}A-{sex}0{k}-S-FM0{number + 1}", letter)
            lines += _rating(f"S01A-{sex}0{k}-R-FM01", "N")
    write(folder / "Evalution.txt", lines)
    touch(folder / "Audio" / "session1" / "S01A" / "S" / "MSP-IMPROV-S01A-F01-S-FM01.wav")
    touch(folder / "Video" / "session1" / "S01A" / "S" / "UTD-IMPROV-S01A-F01-S-FM01.avi")
    write(folder / "All_human_transcriptions" / "MSP-IMPROV-S01A-F01-S-FM01.txt", "How can I not\n")
    return folder


def _rating(name: str, letter: str) -> str:
    return (
        f"UTD-IMPROV-{name}.avi; {letter}; A:2.800000; V:3.000000; D:3.200000 ; N:4.400000;\n"
        "WORKER00000038_5F; Neutral; Neutral,Concerned; A:3.000000; V:3.000000; D:3.000000; N:5.000000;\n\n"
    )


_MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def meld(folder: Path) -> Path:
    """Three splits of two dialogues each, with cp1252 apostrophes; films in the folders of the official release."""
    feelings = (("neutral", "neutral"), ("joy", "positive"), ("anger", "negative"))
    for part, home in (
        ("train", "train_splits"),
        ("dev", "dev_splits_complete"),
        ("test", "output_repeated_splits_test"),
    ):
        rows = _MELD
        for number in range(5):
            emotion, sentiment = feelings[number % 3]
            said, place = f'"{part}\x92s red, blue {number}"', f"{number // 3},{number % 3}"
            rows += f'{number},{said},Joey,{emotion},{sentiment},{place},1,2,"00:00:01,000","00:00:02,000"\n'
            if (part, number) != ("train", 4):
                touch(folder / home / f"dia{number // 3}_utt{number % 3}.mp4")
        write(folder / f"{part}_sent_emo.csv", rows, "latin-1")
    return folder


def crema_d(folder: Path, actors: int = 10) -> Path:
    """Each actor angry and neutral; every second angry voice is a tie of anger and disgust."""
    rows = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'
    people = '"ActorID","Age","Sex","Race","Ethnicity"\n'
    for number in range(actors):
        actor = 1001 + number
        people += f'{actor},51,"{("Male", "Female")[number % 2]}","Asian","Not Hispanic"\n'
        rows += f'"1","{actor}_IEO_ANG_LO","{("A", "A:D")[number % 2]}","50","N","50","A","50"\n'
        rows += f'"2","{actor}_TSI_NEU_XX","N","50","N","50","H","50"\n'
    write(folder / "processedResults" / "summaryTable.csv", rows)
    write(folder / "VideoDemographics.csv", people)
    return folder


def crema_d_with_films(folder: Path, actors: int = 5, seconds: float = 0.7) -> Path:
    """Each actor in all six emotions, with media as they are distributed: films of 30 pictures a second, and sound of
    16 kHz beside. Each emotion has a voice of its own."""
    from films import Tone, write_film
    from media import write_clip

    crema_d(folder, actors)
    rows = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'
    for number in range(actors):
        for place, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
            name, vote = f"{1001 + number}_IEO_{emotion}_XX", emotion[0]
            rows += f'"1","{name}","{vote}","50","{vote}","50","{vote}","50"\n'
            tone = Tone(200 + 200 * place + 10 * number, seconds, "pcm_s16le", 16_000)
            touch(folder / "AudioWAV" / f"{name}.wav", lambda path, tone=tone: write_film(path, tone))
            film = touch(folder / "VideoFlash" / f"{name}.flv")
            write_clip(film, seconds, rate=30, sound=False, picture_codec="flv1")
    write(folder / "processedResults" / "summaryTable.csv", rows)
    return folder
