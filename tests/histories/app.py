"""The entities whose history is kept: one of each kind, with sends, reminders, rejections and snapshots."""

from pydantic import BaseModel

from entities.account import Account
from entities.counter import Counter
from remora import App, Event, EventSourced, command
from remora.settings import Settings


class Notes(BaseModel):
    """What an inbox holds."""

    heard: list[str] = []
    rung: int = 0


class Heard(Event):
    """A word arrived."""

    word: str


class Rung(Event, name="rang"):
    """A reminder came due."""

    which: str


class Inbox(EventSourced[Notes, Heard | Rung]):
    """Sends words on and keeps reminders: what is owed to others is in the store too."""

    @command
    async def tell(self, to: str, word: str) -> int:
        """Send a word to another inbox."""
        self.send(Inbox.hear, to, word)
        return len(self.state.heard)

    @command
    async def hear(self, word: str) -> None:
        """Take a word."""
        self.emit(Heard(word=word))

    @command
    async def wake(self, name: str, after_s: float) -> None:
        """Set a reminder."""
        self.remind(name, after=after_s)

    async def on_reminder(self, name: str) -> None:
        """Note that it rang."""
        self.emit(Rung(which=name))

    def apply(self, event: Heard | Rung) -> None:
        """Keep what happened."""
        match event:
            case Heard():
                self.state.heard.append(event.word)
            case Rung():
                self.state.rung += 1


app = App("history", entities=[Account, Counter, Inbox], settings=Settings(shards=8))
