"""Declaration of a stage: the tables it reads and writes, the flags it depends on, the function that does the work."""

import dataclasses
from collections.abc import Callable

from pipelines.command_line.options import Options
from transforms.tables import files


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a stage finds the tables of earlier stages and writes its own."""

    run_dir: str
    temporary: str
    local: str

    def input(self, table: str) -> str:
        """The directory of a table that an earlier stage wrote."""
        return files.join(self.run_dir, table)

    def output(self, table: str) -> str:
        """The directory in which this stage writes a table: temporary until the stage is complete."""
        return files.join(self.temporary, table)

    def scratch(self, name: str) -> str:
        """A directory for what only this stage needs, gone after it; workers on other machines see it too."""
        return files.join(self.temporary, "_scratch", name)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A verb of the pipeline.

    Attributes:
      name: the command.
      reads: tables of earlier stages, without which it cannot run.
      writes: the tables it leaves.
      run: does the work, given the options and the places; raises where it fails.
      work: the table whose rows are the stage's work, for the display of progress ("" where that is not known).
      tensorflow: whether it uses TensorFlow in this process.
      options: the flags that its tables depend on, as dataclasses of options or by name.
      files: the flags that name files which it reads.
      reads_media: whether it reads what is below --media_root.
      other_sources: executions outside the run that it also reads, by name, given the options and the run's directory.
      show: text that its command prints at the end, of the run's directory.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Options, Places], None]
    work: str = ""
    tensorflow: bool = True
    options: tuple[type | str, ...] = ()
    files: tuple[str, ...] = ()
    reads_media: bool = False
    other_sources: Callable[[Options, str], dict[str, str]] | None = None
    show: Callable[[str], str] | None = None
