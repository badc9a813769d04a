"""What a companion remembers of the channels it takes part in: messages, people, segments, vectors.

A bot stores what is said as it is said, from any of its threads, in the same tables that an import
fills; everything that reads a lab's primary database reads these messages too.
"""

from aico_lab.channel_memory.database import DatabaseManager
from aico_lab.channel_memory.messages import Message
from aico_lab.channel_memory.segments import Segment
from aico_lab.channel_memory.users import User, UserManager
from aico_lab.channel_memory.vectors import MessageVectors, Neighbour

__all__ = [
    "DatabaseManager",
    "Message",
    "MessageVectors",
    "Neighbour",
    "Segment",
    "User",
    "UserManager",
]
