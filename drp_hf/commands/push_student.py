"""`drp push student DIR --repo-id OWNER/NAME`: publishes a trained student with its card and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from drp_hf.commands.parsing import parse_and_run
from drp_hf.commands.push import tell
from drp_hf.errors import DRPError
from drp_hf.hub.publication import Published, PushOptions, publish

INTERRUPTED = "interrupted: nothing is visible before all of it is there, and the same command goes on."


@dataclass
class PushStudentArguments(PushOptions):
    """
    Arguments of `drp push student`. Only what is added to [`~drp_hf.hub.publication.PushOptions`] is listed.

    Parameters:
        > Parameters that control what is published

        student (`str`):
            The output folder of `drp sft` or `drp dpo`, or one of its checkpoints.
        merged (`bool`, *optional*, defaults to `False`):
            Publish the whole model, an adapter merged into its base. This is done without any flag too: every program
            can load it.
        adapter (`bool`, *optional*, defaults to `False`):
            Publish the adapter alone, which needs a base that others can load from the Hub.

        > Parameters that control what the card says

        before (`str`, *optional*):
            Run folder of what was trained, as `drp evaluate` wrote it.
        after (`str`, *optional*):
            Run folder of the student, on the same questions.
        corpus (`str`, *optional*):
            The corpus's name on the Hub, where the training read it from a folder.
        license (`str`, *optional*):
            The licence of the weights; that of the base model, as the Hub has it, if not given.
    """

    student: str = field(kw_only=True, metadata={"help": "The output folder of drp sft or drp dpo."})
    merged: bool = field(
        default=False, metadata={"help": "Publish the whole model, an adapter merged into its base (the default)."}
    )
    adapter: bool = field(default=False, metadata={"help": "Publish the adapter alone."})
    before: str | None = field(default=None, metadata={"help": "Run folder of what was trained."})
    after: str | None = field(default=None, metadata={"help": "Run folder of the student, on the same questions."})
    corpus: str | None = field(default=None, metadata={"help": "The corpus's name on the Hub, if read from a folder."})
    license: str | None = field(default=None, metadata={"help": "Of the weights; the base model's if not given."})


def main(arguments: PushStudentArguments) -> Published:
    """Publishes the student, and prints where it is.

    Raises:
        DRPError: there is nothing that can be published, or the Hub did not take it.
    """
    if arguments.merged and arguments.adapter:
        raise DRPError("merged and adapter are both set: give one of them.")
    from drp_hf.hub.student import student_publication

    with TemporaryDirectory() as work_dir:
        publication = student_publication(
            arguments.student,
            arguments.repo_id,
            work_dir,
            "adapter" if arguments.adapter else "merged" if arguments.merged else None,
            before=arguments.before,
            after=arguments.after,
            corpus=arguments.corpus,
            revision=arguments.revision,
            license={"license": arguments.license} if arguments.license else None,
        )
        return tell(publish(publication, arguments))


def cli() -> None:
    """Entry point of `drp push student`."""
    parse_and_run(main, PushStudentArguments, "student", interrupted=INTERRUPTED)
