"""The words that WhatsApp itself puts into an exported chat, in the languages of phones.

Placeholders differ between versions and languages. So stems are searched for where the form of the
line shows that WhatsApp wrote it: angle brackets, parentheses after a file name, or the mark
U+200E, which WhatsApp for iPhone puts before its own words.
"""

# ruff: noqa: RUF001 the letters of other languages are meant

from __future__ import annotations

import re
from typing import Final

_MEDIA: Final = (
    "media|medien|multimedia|multimídia|mídia|médi|mitjans|medya|medij|mediu|медиа|медіа|мултимед"
    "|мультимед|πολυμέσ|وسائط|رسانه|מדיה|मीडिया|মিডিয়া|மீடியா|media|メディア|미디어|媒体|媒體"
    "|多媒體|สื่อ|phương tiện"
)
_OMITTED: Final = (
    "omit|omes|omis|omès|weggelassen|ausgeschlossen|ausgelassen|oculta|absent|non incl|weggelaten"
    "|отсутств|опущен|пропущ|пропусн|skipped|dahil edilme|eklenme|çıkarıl|utelämna|udelad|utelat"
    "|revelad|jätett|pomini|vynech|kihagy|hiányz|izostav|disertakan|dihilangkan|παραλείφθ|bỏ qua"
    "|ละเว้น|ไม่รวม|استبعاد|محذوف|حذف|הושמט|לא נכלל|省略|忽略|略去|含まれていません|생략|제외"
    "|छोड़|हटा|বাদ"
)
_EDITED: Final = (
    "edit|bearbeitet|modifi|modificat|bewerkt|düzenlen|изменен|отредакт|редагован|змінен|redigera"
    "|redigeret|redigert|edytow|muokat|upraven|szerkeszt|izmijenj|urejen|diedit|chỉnh sửa|แก้ไข"
    "|επεξεργ|تعديل|ویرایش|נערכ|編輯|编辑|編集|수정|संपादित|সম্পাদ"
)
_ATTACHED: Final = (
    "attach|angehängt|anhang|adjunt|joint|allegat|anexad|anexo|bijgevoegd|bijlage|bifoga|vedhæft"
    "|vedlagt|liitet|liite|załącz|přilož|prilož|csatol|atașat|ataşat|ekli|eklendi|eklenmiş|прикреп"
    "|вложен|прикріп|додано|επισυν|συνημμ|مرفق|إرفاق|پیوست|צורף|מצורף|संलग्न|添付|첨부|附件|附加|附带"
    "|lampir|disertakan|đính kèm|แนบ|archivo|fichier|datei|file|bestand|arquivo|plik|dosya"
)

MEDIA_OR_OMITTED: Final = re.compile(f"{_MEDIA}|{_OMITTED}", re.IGNORECASE)
OMITTED: Final = re.compile(_OMITTED, re.IGNORECASE)
EDITED: Final = re.compile(_EDITED, re.IGNORECASE)
ATTACHED: Final = re.compile(_ATTACHED, re.IGNORECASE)

_KINDS: Final = {
    "sticker": "sticker|naklejk|nálepk|matrica|стикер|наліпк|çıkartma|ملصق|סטיקר|貼圖|贴图"
    "|ステッカー|스티커|figurinha|autocollant|tarra|klistermærke|klistremerke|pegatina",
    "animation": "gif",
    "video": "video|vídeo|vidéo|видео|відео|βίντεο|فيديو|ویدیو|וידאו|סרטון|वीडियो|视频|影片|視訊"
    "|動画|ビデオ|동영상|비디오|filmik|wideo",
    "audio": "audio|áudio|ljud|lyd|sound|voice|sprach|voz|vocal|voce|spraak|ses|аудио|аудіо|голосов"
    "|ήχο|صوت|שמע|קולי|ऑडियो|音频|音訊|音声|오디오|음성|dźwięk|ääni|zvuk|hang|suara|âm thanh|เสียง",
    "contact": "contact|kontakt|contatto|contato|контакт|επαφ|جهة اتصال|איש קשר|संपर्क|联系人|聯絡人"
    "|連絡先|연락처|kişi|yhteystie",
    "image": "image|bild|imagen|imagem|immagine|imatge|afbeelding|foto|photo|obraz|obráz|kép|slika"
    "|imagine|kuva|billede|изображ|зображ|фото|εικόνα|görüntü|resim|fotoğraf|صورة|تصویر|תמונה"
    "|चित्र|फ़ोटो|图片|圖片|图像|圖像|画像|写真|이미지|사진|gambar|hình ảnh|รูปภาพ",
    "file": "document|dokument|documento|documentu|документ|έγγραφ|belge|مستند|מסמך|दस्तावेज़|文档"
    "|文件|ドキュメント|문서|asiakirja|dokumen|tài liệu|เอกสาร",
}
KINDS: Final = {kind: re.compile(words, re.IGNORECASE) for kind, words in _KINDS.items()}
"""Words that show the kind of a left-out attachment, from the rarest word on."""

DELETED: Final = frozenset(
    {
        "this message was deleted",
        "you deleted this message",
        "this message has been deleted",
        "message deleted",
        "you deleted this message as admin",
        "diese nachricht wurde gelöscht",
        "du hast diese nachricht gelöscht",
        "sie haben diese nachricht gelöscht",
        "diese nachricht wurde von einem admin gelöscht",
        "se eliminó este mensaje",
        "este mensaje fue eliminado",
        "este mensaje se eliminó",
        "eliminaste este mensaje",
        "eliminó este mensaje",
        "has eliminado este mensaje",
        "borraste este mensaje",
        "se ha eliminado este mensaje",
        "este mensaje ha sido eliminado",
        "ce message a été supprimé",
        "vous avez supprimé ce message",
        "tu as supprimé ce message",
        "questo messaggio è stato eliminato",
        "hai eliminato questo messaggio",
        "questo messaggio è stato cancellato",
        "hai cancellato questo messaggio",
        "mensagem apagada",
        "esta mensagem foi apagada",
        "essa mensagem foi apagada",
        "essa mensagem foi eliminada",
        "esta mensagem foi eliminada",
        "você apagou essa mensagem",
        "você eliminou esta mensagem",
        "apagou essa mensagem",
        "eliminou essa mensagem",
        "mensagem eliminada",
        "esta mensagem foi apagada por um admin",
        "essa mensagem foi apagada por um admin",
        "você apagou esta mensagem",
        "apagou esta mensagem",
        "eliminou esta mensagem",
        "dit bericht is verwijderd",
        "dit bericht werd verwijderd",
        "je hebt dit bericht verwijderd",
        "u hebt dit bericht verwijderd",
        "u heeft dit bericht verwijderd",
        "jij hebt dit bericht verwijderd",
        "данное сообщение удалено",
        "сообщение удалено",
        "это сообщение удалено",
        "вы удалили данное сообщение",
        "вы удалили это сообщение",
        "вы удалили сообщение",
        "це повідомлення видалено",
        "ви видалили це повідомлення",
        "bu mesaj silindi",
        "bu mesajı sildiniz",
        "bu mesajı sildin",
        "ta wiadomość została usunięta",
        "usunięto tę wiadomość",
        "ta wiadomość została skasowana",
        "usunąłeś tę wiadomość",
        "usunęłaś tę wiadomość",
        "wiadomość usunięta",
        "detta meddelande raderades",
        "det här meddelandet har raderats",
        "du raderade detta meddelande",
        "du raderade det här meddelandet",
        "denne besked blev slettet",
        "du slettede denne besked",
        "denne meldingen ble slettet",
        "du slettet denne meldingen",
        "tämä viesti poistettiin",
        "tämä viesti on poistettu",
        "poistit tämän viestin",
        "tato zpráva byla odstraněna",
        "tato zpráva byla smazána",
        "odstranili jste tuto zprávu",
        "táto správa bola odstránená",
        "ez az üzenet törölve lett",
        "ezt az üzenetet törölték",
        "törölted ezt az üzenetet",
        "acest mesaj a fost șters",
        "ați șters acest mesaj",
        "ova je poruka izbrisana",
        "αυτό το μήνυμα διαγράφηκε",
        "αυτό το μήνυμα διαγράφτηκε",
        "διαγράψατε αυτό το μήνυμα",
        "aquest missatge s'ha suprimit",
        "pesan ini telah dihapus",
        "pesan ini dihapus",
        "anda menghapus pesan ini",
        "anda telah menghapus pesan ini",
        "mesej ini telah dipadam",
        "tin nhắn này đã bị xóa",
        "bạn đã xóa tin nhắn này",
        "تم حذف هذه الرسالة",
        "لقد حذفت هذه الرسالة",
        "حذفت هذه الرسالة",
        "این پیام حذف شد",
        "הודעה זו נמחקה",
        "מחקת הודעה זו",
        "यह संदेश मिटाया गया",
        "यह मैसेज डिलीट कर दिया गया",
        "आपने यह संदेश मिटाया",
        "ข้อความนี้ถูกลบแล้ว",
        "このメッセージは削除されました",
        "メッセージを削除しました",
        "このメッセージを削除しました",
        "あなたはこのメッセージを削除しました",
        "あなたがこのメッセージを削除しました",
        "あなたはメッセージを削除しました",
        "このメッセージは削除されています",
        "삭제된 메시지입니다",
        "이 메시지는 삭제되었습니다",
        "이 메시지가 삭제되었습니다",
        "이 메시지를 삭제했습니다",
        "회원님이 이 메시지를 삭제했습니다",
        "메시지를 삭제했습니다",
        "此消息已删除",
        "你已删除此消息",
        "你删除了此消息",
        "您删除了此消息",
        "您已删除这条消息",
        "这条消息已删除",
        "这条消息已被删除",
        "此消息已被删除",
        "您已删除此消息",
        "你已删除这条消息",
        "此訊息已刪除",
        "此訊息已被刪除",
        "這則訊息已刪除",
        "你刪除了此訊息",
        "您刪除了此訊息",
        "你已刪除這則訊息",
        "您已刪除這則訊息",
        "你已刪除此訊息",
        "您已刪除此訊息",
    }
)
"""Notices that take the place of a deleted message, in lower case and without a full stop."""

WAITING: Final = frozenset(
    {
        "waiting for this message. this may take a while",
        "waiting for this message",
        "warte auf diese nachricht. dies kann etwas dauern",
        "esperando este mensaje. esto puede tomar tiempo",
        "en attente de ce message. cela peut prendre un moment",
        "in attesa del messaggio. potrebbe volerci un po' di tempo",
        "aguardando mensagem. essa ação pode levar alguns instantes",
        "wachten op dit bericht. dit kan even duren",
        "ожидание данного сообщения. это может занять некоторое время",
    }
)
"""Notices that take the place of a message that never arrived, written likewise."""

ENCRYPTED: Final = re.compile(
    "end-to-end|ende-zu-ende|end-til-end|extremo a extremo|bout en bout|ponta a ponta|uçtan uca"
    "|сквозн|наскрізн|от край до край|end to end|端到端|端對端|エンドツーエンド|종단 간|تام بين"
    "|سرتاسر|טווח-אל-טווח|מקצה-לקצה|מקצה לקצה|एंड-टू-एंड|végpontok|koncové|kryptowan|de cap a cap"
    "|eind-tot-eind|päästä päähän|d'un extrem|ujung-ke-ujung|đầu cuối|ต้นทาง",
    re.IGNORECASE,
)
"""Texts of the notice at the beginning of a chat, which older versions do not mark."""

NOTICE: Final = re.compile(
    " (?:created (?:this )?group|changed (?:the|this|their|to)|added|removed|left$|joined using"
    "|pinned|turned (?:on|off)|hat (?:den|die|das|dich|sich) |hat .{1,80} hinzugefügt"
    "|hast (?:den|die|das) |cambi(?:ó|aste) |creó |creaste |añadió "
    "|a (?:changé|modifié|créé|ajouté) "
    "|avez (?:changé|modifié|créé|ajouté) |ha (?:cambiato|modificato|creato|aggiunto) "
    "|hai (?:cambiato|modificato|creato|aggiunto) |mudou |alterou |criou |adicionou "
    "|heeft (?:de|het) |hebt (?:de|het) |изменил|создал|добавил|zmienił|utworzył|dodał"
    "|değiştirdi|oluşturdu|ekledi|mengubah |membuat |menambahkan )",
    re.IGNORECASE,
)
"""Changes that somebody made to a group, in a line whose beginning looks like an author."""

NOTICE_ABOUT: Final = re.compile(
    r"[^:\n]{1,80} (?:hat|hast|haben) [^:\n]{0,100}: [^\n]{1,100} (?:hinzugefügt|entfernt)\.?"
    r"|[^:\n]{1,80} (?:heeft|hebt) [^:\n]{0,100}: [^\n]{1,100} (?:toegevoegd|verwijderd)\.?"
    r"|[^:\n]{1,80}, [^:\n]{0,100}: [^\n]{1,100} kişisini (?:ekledi|çıkardı)\.?"
    r"|[^:\n]{1,80}が[^:\n]{0,100}: [^\n]{1,100}を(?:追加|削除)しました。?"
    r"|[^:\n]{1,80}님이 [^:\n]{0,100}: [^\n]{1,100}님을 (?:추가|삭제)했습니다\.?"
)
"""Notices whose verb follows the name of a person, in which there is a colon."""

GROUP: Final = re.compile(
    "(?:group|grup|groep|skupin|csoport|ryhm|групп|груп|ομάδ|grubu|subject|betreff|asunto"
    "|assunto|onderwerp|مجموع|קבוצ|ग्रुप|समूह|群|グループ|그룹|กลุ่ม|nhóm)",
    re.IGNORECASE,
)
"""Words for a group and for its name, in notices."""

COMMUNITY: Final = re.compile(
    "communit|comunid|comunit|communaut|gemeinschaft|gemeenschap|сообществ|спільнот|społecznoś"
    "|topluluk|komunitas",
    re.IGNORECASE,
)
"""Words for a community, whose name is not that of its group."""

CREATED: Final = re.compile(
    "created|erstellt|creó|creaste|créé|creato|criou|aangemaakt|gemaakt|созда|створи|utworzył"
    "|oluşturdu|membuat|skapade|oprettede|opprettet|建立|创建|作成|만들",
    re.IGNORECASE,
)
"""Words of the notice that a group was created."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


AM: Final = _words(
    "am a öö πμ de ap vm fm pd sa pg dop fh priešpiet priekšp проб претпл дп 上午 上晝 凌晨 早上 "
    "清晨 朝早 午前 오전 ص قظ לפנה״צ ก่อนเที่ยง पूर्वाह्न पूर्वान्ह "
    "পূর্বাহ্ন முற்பகல்"
)
PM: Final = _words(
    "pm p ös μμ du ip nm em md ch ptg odp eh popiet pēcp слоб попл пп 下午 下晝 中午 晚上 午後 "
    "오후 م بظ אחה״צ หลังเที่ยง अपराह्न अपरान्ह অপরাহ্ন பிற்பகல்"
)
"""Words for the halves of the day in lower case, without full stops and blanks."""

FILLERS: Final = _words("klo kl um uhr at à às alas h г ч гч r godz den")
"""Words beside a time that do not change its meaning."""

NAME: Final = re.compile(
    r"whatsapp[ -]?chat (?:with|mit|met|med|con|com|dengan|-)\s+(?P<a>.+)"
    r"|(?:chat|conversa|discussion|conversation|conversación) (?:de |do |da )?whatsapp "
    r"(?:con|com|avec|with|dengan|amb)\s+(?P<b>.+)"
    r"|чат whatsapp с (?:контактом )?(?P<c>.+)"
    r"|czat whatsapp z (?P<d>.+)"
    r"|(?P<e>.+) ile whatsapp sohbeti"
    r"|whatsapp-keskustelu: ?(?P<f>.+)",
    re.IGNORECASE,
)
"""The name of a chat in the name of its file."""
