"""`lab.privacy`: erase people, channels, conversations and imports, and read the receipts."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aico_lab.errors import ErasureError, HomeError, StorageError
from aico_lab.home.files import private_files
from aico_lab.home.receipts import is_authentic, receipt_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from aico_lab.federation.erasures import ErasedForDevice
    from aico_lab.privacy.forgetting import ErasureResult, Forgetting
    from aico_lab.privacy.shared_files import Content
    from aico_lab.privacy.sharing import SharedExport
    from aico_lab.storage import Storage


class Privacy:
    """Erases what people ask for, and has the receipts."""

    def __init__(self, storage: Storage, release_cache: Callable[[], None]) -> None:
        """Use a home.

        Args:
            storage: The opened databases.
            release_cache: Closes the cache if this process has it open.
        """
        self._storage = storage
        self._release_cache = release_cache

    @private_files()
    def forget(
        self,
        *,
        user: str | None = None,
        channel: str | None = None,
        conversation: str | None = None,
        import_id: str | None = None,
        before: str | date | None = None,
        dry_run: bool = False,
        reports: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> ErasureResult:
        """Erase a person, a channel, a conversation, an import or a time from every store.

        An erasure that an earlier process began is finished first.

        Args:
            user: The id of a person: their messages, what the companion said in conversations with
                nobody else, and all that is known of them.
            channel: The id of a channel.
            conversation: The id of a conversation.
            import_id: The id of an import: what it added goes, and what it replaced comes back.
            before: Everything from before a day or a time; a day begins in the lab's time zone.
            dry_run: Only count, and list the files that name it.
            reports: Remove also the outputs of notebooks in the home that name it.
            progress: Called with a step, the number of steps done, and their total.

        Raises:
            WrongUse: None or several of the first five are given.
            UnknownName: The home has nothing with this id.
            ErasureBusy: Another process is erasing.
            ErasureIncomplete: A search still found something; another call goes on.
            InvalidValue: A change of the key is unfinished.
        """
        from aico_lab.privacy.scope import Scope

        given = {
            "user": user, "channel": channel, "conversation": conversation, "import": import_id,
            "before": before,
        }  # fmt: skip
        scope = Scope.of(given, self._storage.timezone)
        forgetting = self._forgetting(progress)
        if dry_run:
            return forgetting.rehearse(scope)
        return forgetting.forget(scope, reports=reports)

    @private_files()
    def resume(self) -> list[ErasureResult]:
        """Finish erasures that were interrupted, and repeat those that a restored database lost."""
        return self._forgetting(None).resume()

    @private_files()
    def erase_asked(
        self, progress: Callable[[str, int, int], None] | None = None
    ) -> list[ErasedForDevice]:
        """Carry out the erasures that the person's other devices asked for.

        Args:
            progress: Called with a step, the number of steps done, and their total.

        Raises:
            ErasureIncomplete: An erasure could not begin, or not be finished.
        """
        from aico_lab.privacy.asked import erase_asked

        return erase_asked(self._storage, self._forgetting(progress))

    def share(
        self,
        folder: Path | str,
        *,
        content: Content = "redacted",
        pseudonymise: bool = False,
        study: str = "default",
        shift_times: bool = False,
        since: str | date | None = None,
        user: str | Sequence[str] | None = None,
        min_people: int = 5,
        encrypt: Sequence[str] = (),
    ) -> SharedExport:
        """Export the messages of the newest (or pinned) snapshot into a new folder for others.

        Args:
            folder: The folder, which does not exist or is empty.
            content: 'none' leaves texts out, 'redacted' removes names, numbers and addresses by
                rules, 'full' keeps them.
            pseudonymise: Replace the ids of people, channels, conversations and messages.
            study: The name of the study within which pseudonyms stay the same.
            shift_times: Shift the times of each person by whole weeks; only with `pseudonymise`.
            since: The first day or moment, or a span back from the last message: '30d', '4w'.
            user: Only the conversations of these people with the companion: ids or names.
            min_people: Leave out counts of fewer people.
            encrypt: The age recipients for whom the files are encrypted; none for plain text.

        Raises:
            InvalidValue: The folder has files or is inside a home, or an option is invalid.
            UnknownName: There is no such person.
            NeverSynced: There is no snapshot yet.
            DiskFull: There is no room; nothing is left in the folder.
        """
        from aico_lab.privacy.sharing import share

        return share(
            self._storage, Path(folder), content=content, pseudonymise=pseudonymise, study=study,
            shift_times=shift_times, since=since, user=user, min_people=min_people,
            encrypt=encrypt,
        )  # fmt: skip

    def erase_again(self) -> None:
        """Delete from a restored older database what was erased from the newer one.

        The next sync, or erasure, goes on with the other stores. If another process is erasing, or
        the home cannot be written, nothing is done.
        """
        storage = self._storage
        with contextlib.suppress(StorageError, HomeError, ErasureError):
            if storage.home.erasures.exists() or storage.primary.fetch_one(
                "SELECT 1 FROM erasures"
            ):
                self._forgetting(None).erase_again()

    def unfinished(self) -> list[str]:
        """Return the ids of erasures that `resume` would finish or repeat."""
        return self._forgetting(None).unfinished()

    def receipts(self) -> list[dict[str, Any]]:
        """Return the receipts of finished erasures, oldest first."""
        rows = self._storage.primary.fetch_all(
            "SELECT receipt FROM erasures WHERE finished_at IS NOT NULL ORDER BY finished_at"
        )
        return [json.loads(receipt) for (receipt,) in rows]

    def is_authentic(self, receipt: dict[str, Any]) -> bool:
        """Return whether a receipt was written by this home and not changed since."""
        return is_authentic(receipt, receipt_key(self._storage.home, self._storage.keys))

    def _forgetting(self, progress: Callable[[str, int, int], None] | None) -> Forgetting:
        from aico_lab.privacy.forgetting import Forgetting

        return Forgetting(self._storage, self._release_cache, progress)

    def __repr__(self) -> str:
        return "<Privacy: .forget(user=ID) erases, .receipts() has what went, .share(DIR) exports>"
