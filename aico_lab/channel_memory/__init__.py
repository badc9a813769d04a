"""A companion's memory of its channels: messages, people, segments and vectors.

A bot stores messages as they arrive, from any of its threads, in the same tables that imports fill;
everything that reads a lab's primary database reads these messages too.
"""

from aico_lab.channel_memory.database import DatabaseManager
from aico_lab.channel_memory.messages import Message
from aico_lab.channel_memory.segments import Segment
from aico_lab.channel_memory.users import ChannelUser, UserManager
from aico_lab.channel_memory.vectors import MessageVectors, Neighbour

__all__ = [
    "ChannelUser",
    "DatabaseManager",
    "Message",
    "MessageVectors",
    "Neighbour",
    "Segment",
    "UserManager",
]
