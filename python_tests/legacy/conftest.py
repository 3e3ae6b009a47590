import pytest
from legacy_databases import FACES, SPEECH, feature_database, write_vocabulary
from runs import here


@pytest.fixture
def case(tmp_path):
    """Databases of faces and speech, and a function that runs the import of text databases below the folder."""
    feature_database(tmp_path / "fc/feat_th0.5_max36_min10", FACES)
    feature_database(tmp_path / "sp/feat_th1.0_max64_min10", SPEECH)
    write_vocabulary(tmp_path)

    def run(*texts, face="fc/feat_th0.5_max36_min10", speech="sp/feat_th1.0_max64_min10", options=()):
        line = [*texts, "--vocab", "vocab.txt", "--out", "out", *options]
        line += (["--face", face] if face else []) + (["--speech", speech] if speech else [])
        return here(tmp_path, "import-legacy", *line)

    return run
