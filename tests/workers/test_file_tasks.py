"""A batch converts what it can, names what it cannot, and is not done twice."""

import base64
import json
import lzma
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pyarrow.parquet
import pytest
from rq.timeouts import JobTimeoutException

from libraries.files import output_dir, upload_dir
from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from libraries.tables.files import convert_upload
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.disk import full_disk
from tests.support.processes import ROOT, Worker, eventually
from workers import file_tasks
from workers.file_tasks import process_batch

MODULE = 'workers.file_tasks'
BATCH = f'{MODULE}.process_batch'

Upload = Callable[[str, str], str]


@pytest.fixture
def upload() -> Upload:
    folder = upload_dir()
    folder.mkdir()

    def write(name: str, content: str) -> str:
        (folder / name).write_text(content)
        return name

    return write


def converted(name: str) -> Path:
    return output_dir() / 'converted' / name


def report_of(name: str = '*') -> dict[str, Any]:
    (path,) = (output_dir() / 'batches').glob(f'{name}.json')
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_each_file_has_its_result_in_order(upload: Upload) -> None:
    files = [upload(f'{name}.csv', f'a\n{name}\n') for name in 'cab']
    assert process_batch(files) == [
        {'file': file, 'result': str(converted(f'{file}.json')), 'error': None} for file in files
    ]
    assert json.loads(converted('b.csv.json').read_text()) == [{'a': 'b'}]


@pytest.mark.parametrize('format', ['csv', 'json', 'ndjson', 'parquet'])
def test_every_operation(upload: Upload, format: str) -> None:
    operation: Any = f'convert_to_{format}'
    assert process_batch([upload('a.csv', 'a\n1\n')], operation)[0]['result'] == str(
        converted(f'a.csv.{format}')
    )


def test_a_bad_file_is_named_and_stops_no_other(upload: Upload) -> None:
    files = [upload('a.csv', 'a\n1\n'), upload('bad.csv', 'a,b\n1\n'), 'missing.csv', '../x.csv']
    files.append(upload('z.csv', 'a\n2\n'))
    with pytest.raises(PermanentJobError) as caught:
        process_batch(files)
    error = str(caught.value)
    assert error.startswith('3 of 5 files failed: bad.csv: line 2 has 1 field where the header')
    assert 'missing.csv' in error
    assert 'batches/' in error
    assert '\n' not in error
    outcomes = report_of()['outcomes']
    assert [outcome['file'] for outcome in outcomes] == files
    assert [outcome['error'] is None for outcome in outcomes] == [True, False, False, False, True]
    assert outcomes[4]['result'] == str(converted('z.csv.json'))
    assert converted('z.csv.json').exists()


def test_no_odd_file_stops_the_others(upload: Upload) -> None:
    folder = upload_dir()
    odd = [upload('huge.json', '[{"a": 1e9999999999999999999}]'), 'ok.csv/b.csv', 'pipe.csv']
    os.mkfifo(folder / 'pipe.csv')
    ok = upload('ok.csv', 'a\n1\n')
    (folder / 'ok.csv.parquet').mkdir()
    odd.append(upload('ok.csv.parquet/x.csv', 'a\n1\n'))
    moment = pyarrow.array([0], pyarrow.timestamp('us', '+05:30'))
    pyarrow.parquet.write_table(pyarrow.table({'a': moment}), folder / 'zone.parquet')
    last = upload('last.csv', 'a\n1\n')
    with pytest.raises(PermanentJobError, match='5 of 7 files failed'):
        process_batch([ok, *odd, 'zone.parquet', last], 'convert_to_parquet')
    assert [outcome['error'] is None for outcome in report_of()['outcomes']] == [
        True, False, False, False, False, False, True,
    ]  # fmt: skip


UNREADABLE = """
import os
from workers.file_tasks import process_batch
os.umask(0)
process_batch(['ok.csv'])  # so that all modules are there
if os.geteuid() == 0:
    os.setuid(65534)  # since nothing is forbidden to root
process_batch(['ok.csv', 'secret.csv', 'last.csv'])
"""


def test_a_file_that_the_worker_may_not_read_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as name:  # to which every user has a way
        base = Path(name)
        folders = {'UPLOAD_DIR': base / 'up', 'OUTPUT_DIR': base / 'out'}
        for folder in (base, *folders.values()):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        for file in ('ok.csv', 'secret.csv', 'last.csv'):
            (base / 'up' / file).write_text('a\n1\n')
        (base / 'up' / 'secret.csv').chmod(0)
        monkeypatch.setenv('UPLOAD_DIR', str(base / 'up'))
        monkeypatch.setenv('OUTPUT_DIR', str(base / 'out'))
        command = [sys.executable, '-c', UNREADABLE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert '1 of 3 files failed: secret.csv: the worker may not read it' in done.stderr
        assert len(list((base / 'out' / 'converted').iterdir())) == 2


# Parquet whose sizes are damaged, so that the engine asks for 2 EB and aborts the process.
ABORTING = (
    '{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;0{>>UtItw5Jrehl4^5+Q4HBlW{HT<c1FzUZTa?NVW-*@9%srM407l7@1xYfx?'
    '~J`AGcVfZ-*(8zd^;sh;OJlytW4jpAsI{a#0Y!B2#z<^&L|nHW)xGLG|RA&;ivc?b3%XhFR=7hQ+O(AA3cGa+~xmXKVs'
    'e5_ilXVn8wA=><Q@+636*IFy^ZN?+6y6MHVAd$ys@bs^w@UvjKT6-Md&>hiFe6HYDjK{b?qv7wyV#it<a5>5nLedjqrd'
    'L@G#NU(e&_Y$Rlt{_#w<}PD3c6gKLjjiq5N$k=fqX^y>_o;>2tuYA*3{X1d9!xMdI&AF%#s6!U)bsQw0roWRU?dVV0N='
    'lz6Blm3T<P0;&o~a~Gi-lnJI(2$ar0UZ>+w(2z_R`FcOBu&tqInGfeh`u4F}K^GI&{L$3A!C3hZt`H4;(y724~mSyVXQ'
    '^fpcae+BRdw{6c@u0ol`>cyup2wl^ZV1X)j-35zP*Cw1+9T9>7T@Cnic`a-VbuS`>vzj>erf<VA<{Vuj!XQqQu*!Qyuo'
    'P0<AziUFuz>78dk<z>zExH{JN5~!@Eyp<8;Z6=)Wot@DNE!B{l#+;!!L7&P?RfIA8^i)GG*kdozTvhb`tno)9Xh<J!Q?'
    'lVcJ1Q(Fvrj+^C*zb@dTcxdrqls<aZ7((Xg=Pv52CzSr6!m_3Sxz8@?ou3R;;H`=&Y1R$XnpE-;okst+nbFufiHqeDyk'
    'Ud8Qe1oeC-%r5u-yu>HJmhGjZ3@3v@ApC=L^pj7uLEVBZ`|M4QtMGoED9tD>76kMDk=BDSXr%qxFK~%ve3P+(|P4SS8;'
    'r`2W{C>dD%*9+&yEUrz3I4b$E)D+qdJQp0Ie6YV`)0_Tq+1K2g4Ijx`YzfXW*P$$%I=<=`8GSJFCzk%JR+n_D%)5omp7'
    'R*5qxU<qh7uA(qWK08e7ae_UWEG~>muC?!?tPR5a>&#Jkw5@G+x>&&gD*G+DQAO#gg!OoP|B-3R|9eO~iwHvkmxHN>rw'
    'DXzJ?Q1Ca}WTQ?%4#u&JW9dCh<Fp-<B_AB1UO+D-g;$eyQ!h4GD@-biVL}new*Ya7dwk+My$ySvEHFw)Ot;WqceI{H7b'
    '!{5W#!UsW|edb|Jt&&JF(7B)#y00H|3+8h7?PRo^VvBYQl0ssI200dcD'
)


def test_a_file_that_kills_its_worker_is_given_up_after_the_second(upload: Upload) -> None:
    folder = upload_dir()
    (folder / 'abort.parquet').write_bytes(lzma.decompress(base64.b85decode(ABORTING)))
    files = [upload('ok.csv', 'a\n1\n'), 'abort.parquet', upload('last.csv', 'a\n1\n')]
    command = [sys.executable, '-c', f'import {MODULE} as m; m.process_batch({files})']
    for deaths in (1, 2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
        assert done.returncode == -signal.SIGABRT
        assert [outcome['file'] for outcome in report_of()['outcomes']] == ['ok.csv']
        assert report_of()['begun'] == {'abort.parquet': deaths}
    with pytest.raises(PermanentJobError, match=r'1 of 3 files failed: abort.parquet: 2 workers'):
        process_batch(files)
    assert [outcome['error'] is None for outcome in report_of()['outcomes']] == [True, False, True]
    assert 'begun' not in report_of()


def test_an_attempt_that_ends_otherwise_does_not_count_against_its_file(upload: Upload) -> None:
    table = pyarrow.table({'a': range(10_000)})
    pyarrow.parquet.write_table(table, upload_dir() / upload('a.parquet', ''))
    for _ in range(3):
        with full_disk(20_000), pytest.raises(OSError, match='File too large'):
            process_batch(['a.parquet'])
    assert process_batch(['a.parquet'])[0]['error'] is None


def test_the_error_of_many_bad_files_stays_short(upload: Upload) -> None:
    files = [upload(f'{number}-{"x" * 200}.csv', 'a,b\n1\n') for number in range(100)]
    with pytest.raises(PermanentJobError, match=r'100 of 100 files failed.*and 95 more') as caught:
        process_batch(files)
    assert len(str(caught.value)) < 1500
    assert len(report_of()['outcomes']) == 100


def test_a_file_named_twice_is_converted_once(upload: Upload) -> None:
    upload('a.csv', 'a\n1\n')
    first, second = process_batch(['a.csv', 'a.csv'])
    assert first == second
    assert len(process_batch(['a.csv', './a.csv'])) == 2


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(PermanentJobError, match='file_list is empty'):
        process_batch([])


@pytest.mark.parametrize('arguments', [(['a'], 'convert_to_xml'), ('a',), ([1],)])
def test_a_wrong_argument_is_refused_when_it_is_enqueued(arguments: Any) -> None:
    with pytest.raises(InvalidJobError):
        enqueue_background_job(BATCH, *arguments)


# Done once


def marks() -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in converted('').glob('[!.]*')}


def test_what_is_done_is_not_done_again_unless_something_has_changed(upload: Upload) -> None:
    files = [upload(f'{name}.csv', f'a\n{name}\n') for name in 'abcd']
    process_batch(files)
    before = marks()
    upload('b.csv', 'a\nanother\n')
    converted('c.csv.json').unlink()
    converted('d.csv.json').write_text('[]')
    process_batch(files)
    after = marks()
    assert {name for name in before if before[name] == after[name]} == {'a.csv.json'}
    assert json.loads(converted('b.csv.json').read_text()) == [{'a': 'another'}]
    assert json.loads(converted('d.csv.json').read_text()) == [{'a': 'd'}]


@pytest.mark.parametrize('content', ['', '{', '{"operation": "convert_to_json"}', '[]', '\udcff'])
def test_a_report_that_cannot_be_read_is_no_obstacle(upload: Upload, content: str) -> None:
    file = upload('a.csv', 'a\n1\n')
    process_batch([file])
    (path,) = (output_dir() / 'batches').iterdir()
    path.write_bytes(content.encode('utf-8', 'surrogateescape'))
    assert process_batch([file])[0]['error'] is None


def test_the_report_is_written_on_the_way(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what was done before the worker is killed is known."""
    monkeypatch.setattr(file_tasks, 'REPORT_INTERVAL', 0)
    known: list[list[str]] = []

    def convert(file: str, format: Any) -> PurePath:
        known.append([outcome['file'] for outcome in report_of()['outcomes']] if known else [])
        return convert_upload(file, format)

    monkeypatch.setattr(file_tasks, 'convert_upload', convert)
    process_batch([upload(f'{name}.csv', 'a\n1\n') for name in 'abc'])
    assert known == [[], ['a.csv'], ['a.csv', 'b.csv']]


def test_a_time_out_leaves_a_report_of_what_is_done(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [upload(f'{name}.csv', 'a\n1\n') for name in 'abc']

    def convert(file: str, format: Any) -> PurePath:
        if file == 'b.csv':
            raise JobTimeoutException
        return convert_upload(file, format)

    with monkeypatch.context() as patch:
        patch.setattr(file_tasks, 'convert_upload', convert)
        with pytest.raises(JobTimeoutException):
            process_batch(files)
    assert [outcome['file'] for outcome in report_of()['outcomes']] == ['a.csv']
    before = marks()
    process_batch(files)
    assert before.items() < marks().items()


@pytest.mark.usefixtures('shared_worker')
def test_a_job_of_a_bad_file_fails_at_once_and_its_outcomes_can_be_read(upload: Upload) -> None:
    files = [upload('a.csv', 'a\n1\n'), upload('bad.csv', 'a,b\n1\n')]
    job = enqueue_background_job(BATCH, files, job_max_retries=3)
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 1
    assert str(status['error']).startswith(
        'PermanentJobError: 1 of 2 files failed: bad.csv: line 2'
    )
    assert status['progress'] == {'done': 2, 'total': 2, 'message': 'convert to json'}
    assert report_of(job.id)['outcomes'][0]['error'] is None


@pytest.mark.slow
@pytest.mark.usefixtures('shared_worker')
def test_a_time_out_ends_the_job_and_the_next_attempt_does_what_is_missing(
    upload: Upload,
) -> None:
    upload('a.csv', 'a\n1\n')
    upload('big.csv', 'a,b\n' + '"some text",2\n' * 15_000_000)
    job = enqueue_background_job(
        BATCH, ['a.csv', 'big.csv'], job_timeout=2, job_max_retries=9, job_retry_delay=2
    )
    eventually(lambda: get_job_status(job.id)['attempts'] and report_of(job.id)['outcomes'])
    assert [outcome['file'] for outcome in report_of(job.id)['outcomes']] == ['a.csv']
    before = marks()
    upload('big.csv', 'a,b\n1,2\n')
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'finished', status['error']
    assert 'JobTimeoutException' in str(status['attempts'][0])
    assert marks()['a.csv.json'] == before['a.csv.json']
    assert report_of(job.id)['outcomes'][1]['result'] == str(converted('big.csv.json'))


@pytest.mark.slow
def test_a_killed_attempt_is_gone_on_with(upload: Upload, own_worker: Worker) -> None:
    done = [upload('a.csv', 'a\n1\n'), upload('b.csv', 'a\n2\n')]
    slow = upload_dir() / 'slow.parquet'
    pyarrow.parquet.write_table(pyarrow.table({'a': pyarrow.repeat(1, 20_000_000)}), slow)
    files = [*done, slow.name, upload('z.csv', 'a\n3\n')]
    with own_worker('--burst') as worker:
        job = enqueue_background_job(BATCH, files, job_id='batch')
        written = output_dir() / 'batches' / 'batch.json'
        eventually(lambda: written.exists() and report_of('batch').get('begun') == {slow.name: 1})
        os.kill(worker.pid, signal.SIGKILL)
    report = report_of('batch')
    assert [outcome['file'] for outcome in report['outcomes']] == done
    assert report['begun'] == {slow.name: 1}
    before = marks()
    pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), slow)
    with own_worker():
        assert wait_for_job(job.id, 60)['status'] == 'finished'
    assert before.items() < marks().items()
    assert len(marks()) == len(files)
