"""Markers skip with their reason; tests have a home of their own; memory from `torch.empty` is poisoned with NaN, so
that an unwritten output fails."""

import os
import signal
import tempfile
from pathlib import Path

# tests are small and may run in several processes: more threads would mostly wait for one another; what is about
# threads sets them itself
os.environ.setdefault("OMP_NUM_THREADS", "1")

import elsewhere
import error_rule
import pytest
import torch

from memofast import _C

# under nohup these are ignored, also by programs that tests start and signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

_DATA = Path(os.environ.get("MEMOFAST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
_CAMPAIGN = os.environ.get("MEMOFAST_CAMPAIGN") == "1"
_empty = torch.empty
_empty_like = torch.empty_like


def pytest_addoption(parser):
    campaign = parser.getgroup("campaign", "of the tests marked campaign")
    campaign.addoption("--count", type=int, help="run them, of this size; 1000: 1,000 kills, 100,000 damaged files")
    campaign.addoption("--seed", type=int, default=0, help="of what they draw")


def pytest_collection_modifyitems(config, items):
    no_campaign = pytest.mark.skip(reason="kills and repeats runs for long; set MEMOFAST_CAMPAIGN=1 or give --count")
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    no_data = pytest.mark.skip(reason=f"no real data at {_DATA}; set MEMOFAST_DATA")
    for item in items:
        # names the build in JUnit XML, so that the speed report trusts no tests of another one; a suite's properties
        # are lost under xdist
        item.user_properties.append(("build", _C.source_digest))
        if "gpu" in item.keywords:
            item.user_properties.append(("device", "gpu"))  # the speed report asks where an operator's tests ran
            if not torch.cuda.is_available():
                item.add_marker(no_gpu)
        if "real" in item.keywords and not _DATA.is_dir():
            item.add_marker(no_data)
        if item.get_closest_marker("campaign") and not _CAMPAIGN and config.getoption("count") is None:
            item.add_marker(no_campaign)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process gets a long run of neighbours, and half of what another has left when it is done: fixtures of a
    module are made more than once only where a run is cut."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def own_home(monkeypatch):
    """No test finds what the user or another test downloaded, generated or configured, and what it leaves there goes
    with it."""
    with tempfile.TemporaryDirectory(dir=elsewhere.SESSION, ignore_cleanup_errors=True) as folder:
        for name in elsewhere.PAST_HOME:
            monkeypatch.delenv(name, raising=False)
        for name, value in elsewhere.home(folder).items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def errors_beside_the_result(request):
    """What a test told of errors goes to its JUnit XML, for the speed report."""
    error_rule.told.clear()
    yield
    request.node.user_properties += error_rule.told


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _DATA.resolve()


def _poison(tensor: torch.Tensor) -> torch.Tensor:
    if type(tensor) is torch.Tensor and tensor.device.type != "meta":
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
        elif tensor.dtype in (torch.int32, torch.int64):
            tensor.fill_(-(2**30))
    return tensor


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Memory that operators allocate arrives as NaN (integers: -2^30)."""
    monkeypatch.setattr(torch, "empty", lambda *a, **k: _poison(_empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: _poison(_empty_like(*a, **k)))
