"""Exports of conversations as other programs write them.

Each format is a module, or a folder if it has parts, with `recognise` and `conversations` (see
`engine.reading.Format`); it yields the objects of `engine.conversation`. `engine.records` turns
them into records, alike for all formats.
"""

from __future__ import annotations

from typing import Final

FORMATS: Final[dict[str, tuple[str, str]]] = {
    "aico": (
        "AICO: its folder of data, with working and long-term memory",
        """Close AICO, then import the folder data that has memory, with LMDB and Chroma, in it.
AICO_LAB_SOURCE_KEY holds the key of its encrypted database, for the feedback.""",
    ),
    "characterai": (
        "Character.AI chats: turns, or histories of the old site, as browser exporters save them",
        """With a browser extension that saves chats as JSON, such as CAI Tools: open the chat, and
save its messages as they are. For histories of the old site: the JSON file of its dumper.""",
    ),
    "chatgpt": (
        "ChatGPT's export: the zip, conversations.json, or its parts",
        """In ChatGPT: Settings, Data controls, Export data.
The link in the e-mail leads to a zip; import it as it is.""",
    ),
    "claude": (
        "Claude's export: the zip, conversations.json, or a folder of conversations",
        """In Claude: Settings, Privacy, Export data.
The link in the e-mail leads to a zip; import it as it is.""",
    ),
    "discord": (
        "Discord channels from DiscordChatExporter: a JSON file, or a folder or zip of them",
        """In DiscordChatExporter: choose the channels, then Export with the format JSON.
Import the file, or the folder with all channels, threads and parts.""",
    ),
    "gemini": (
        "Gemini: My Activity as JSON, or the conversations of Google Workspace",
        """In takeout.google.com: My Activity, only Gemini Apps, with JSON as the format (not HTML).
In Google Workspace: Gemini in Workspace. Import the zip as it is.""",
    ),
    "librechat": (
        "LibreChat: a conversation exported as JSON, or a folder of them",
        """In LibreChat: the conversation's menu, Export, type json, with all branches.
Collect the files of several conversations in one folder and import the folder.""",
    ),
    "lmstudio": (
        "LM Studio: a file *.conversation.json, or its folder of conversations",
        """LM Studio keeps them in the folder .lmstudio/conversations of your home.
Import that folder, or one file of it.""",
    ),
    "openai": (
        "OpenAI's training files: messages with role and content, one conversation a line",
        """Any program that writes training files for fine-tuning chat models makes such a file.
It has no times: add --start TIME for the first message.""",
    ),
    "openwebui": (
        "Open WebUI: exported chats, or its database webui.db",
        """In Open WebUI: Settings, Data controls (or Chats), Export chats.
Or copy webui.db from the folder of the program's data while it does not run.""",
    ),
    "pigpig": (
        "PigPig: its database of channel memory, as written in 2025",
        """The database (SQLite) lies in the bot's folder data, beside its file -wal if it runs.
Import it where it is: nothing is written into it or beside it.""",
    ),
    "replika": (
        "Replika chats: the CSV of replika_backup, or messages.json of replika-chat-export",
        """Replika has no export of its own: run replika_backup, and import its CSV file.
Or run replika-chat-export, and import its messages.json.""",
    ),
    "sharegpt": (
        "ShareGPT's training files: conversations with from and value",
        """Any program that writes training files in ShareGPT's form makes such a file.
It has no times: add --start TIME for the first message.""",
    ),
    "sillytavern": (
        "SillyTavern chats: a JSONL file, or the folder of chats with its checkpoints",
        """In SillyTavern: Manage chat files, Export as JSONL.
Or import its folder data/default-user/chats, or one character's folder in it.""",
    ),
    "telegram": (
        "Telegram Desktop's result.json: one chat, or the whole account",
        """In Telegram Desktop: the chat's menu, Export chat history, Format: Machine-readable JSON.
For all chats: Settings, Advanced, Export Telegram data.""",
    ),
    "whatsapp": (
        "a WhatsApp chat from Android or iPhone: the text file, or the zip with it",
        """In the chat: its menu or the contact's name, (More,) Export chat, Without media.
Send the file to yourself, and import it with the --timezone of the phone.""",
    ),
}
"""The name of each format, its description in one line, and how to get such an export.

The module of a format has its name.
"""
