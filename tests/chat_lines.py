"""Invented lines of chats in other languages than English, twenty of each, in their order."""

# ruff: noqa: RUF001

from __future__ import annotations

LINES = {
    "de": """Hey, bist du da?
        Ja, gerade nach Hause gekommen
        Wie war dein Tag?
        Ganz ok, aber ich bin total müde
        Kenn ich, die Woche war lang
        Hast du schon was gegessen?
        Noch nicht, ich wollte gleich Nudeln machen
        ok
        Kannst du mir ein Rezept empfehlen, das schnell geht?
        Klar! Knoblauch, Öl, Chili, fertig in zehn Minuten
        Super, danke dir
        Bitte
        Die Hunde sind da.
        lol was für Hunde?
        Die vom Nachbarn, sie bellen schon den ganzen Abend
        Oh nein, das nervt bestimmt
        Ja total
        Soll ich dir ein paar Ohrstöpsel bestellen?
        Haha, gute Idee
        Gut, dann schlaf später schön""",
    "fr": """Salut, tu es là ?
        Oui, je viens de rentrer
        Comment s'est passée ta journée ?
        Pas mal, mais je suis crevé
        Ah oui, je comprends
        Tu as mangé ?
        Non pas encore, j'ai trop la flemme de cuisiner
        mdr
        Tu veux que je te propose une recette rapide ?
        Oui vas-y
        Des pâtes à l'ail, prêt en dix minutes
        Parfait, merci beaucoup
        De rien !
        Au fait, j'ai vu Paul ce matin
        Ah bon ? Et alors ?
        Il part en Espagne la semaine prochaine
        La chance...
        Grave, moi aussi je voudrais des vacances
        ok
        Bon, à demain alors, bonne nuit""",
    "es": """Hola, ¿estás ahí?
        Sí, acabo de llegar a casa
        ¿Qué tal el día?
        Bien, pero estoy muy cansado
        Normal, fue una semana larga
        jajaja sí
        ¿Ya cenaste?
        Todavía no, no tengo ganas de cocinar
        Puedo recomendarte una receta fácil si quieres
        Dale
        Pasta con ajo y aceite, lista en diez minutos
        Perfecto, muchas gracias
        De nada
        no me gusta nada el calor que hace hoy
        A mí tampoco, no se puede dormir
        ok
        ¿Vas a salir mañana?
        Creo que no, tengo que estudiar
        Qué pena
        Bueno, hablamos mañana, un abrazo""",
    "nl": """Hoi, ben je daar?
        Ja, ik ben net thuis
        Hoe was je dag?
        Wel goed, maar ik ben echt moe
        Dat snap ik, het was een lange week
        Heb je al gegeten?
        Nog niet, ik heb geen zin om te koken
        haha
        Zal ik een makkelijk recept sturen?
        Ja graag
        Pasta met knoflook, klaar in tien minuten
        Top, dank je wel
        Graag gedaan
        Mijn broer komt morgen langs
        Oh leuk, wat gaan jullie doen?
        We gaan naar het strand als het weer goed is
        Lekker
        ok
        Vergeet je zonnebrand niet
        Nee hoor, slaap lekker""",
    "it": """Ciao, ci sei?
        Sì, sono appena tornato a casa
        Com'è andata oggi?
        Bene, ma sono stanchissimo
        Eh ti capisco
        Hai già mangiato?
        Non ancora, non ho voglia di cucinare
        ahahah
        Vuoi una ricetta veloce?
        Sì dai
        Pasta aglio e olio, pronta in dieci minuti
        Perfetto, grazie mille
        Prego
        Domani viene a trovarmi mia sorella
        Che bello! Cosa fate?
        Andiamo al mare se c'è il sole
        Beati voi
        ok
        Non dimenticare la crema
        Va bene, buonanotte""",
    "pt": """Oi, você está aí?
        Sim, acabei de chegar em casa
        Como foi o seu dia?
        Foi bom, mas estou muito cansado
        Imagino, a semana foi longa
        kkkkk verdade
        Já jantou?
        Ainda não, estou com preguiça de cozinhar
        Quer uma receita fácil?
        Quero sim
        Macarrão com alho, fica pronto em dez minutos
        Perfeito, muito obrigado
        De nada
        Amanhã minha irmã vem me visitar
        Que legal! O que vocês vão fazer?
        Vamos à praia se não chover
        Que inveja
        ok
        Não esquece o protetor solar
        Pode deixar, boa noite""",
    "tr": """Selam, orada mısın?
        Evet, eve yeni geldim
        Günün nasıl geçti?
        İyiydi ama çok yoruldum
        Anlıyorum, uzun bir haftaydı
        Yemek yedin mi?
        Henüz yemedim, yemek yapmaya üşeniyorum
        haha
        Sana kolay bir tarif vereyim mi?
        Olur
        Sarımsaklı makarna, on dakikada hazır
        Harika, çok teşekkür ederim
        Rica ederim
        Yarın kardeşim geliyor
        Ne güzel, ne yapacaksınız?
        Hava güzel olursa denize gideceğiz
        Çok iyi
        tamam
        Güneş kremini unutma
        Unutmam, iyi geceler""",
    "hi": """नमस्ते, आप वहाँ हैं?
        हाँ, मैं अभी घर आया हूँ
        आपका दिन कैसा रहा?
        अच्छा था, लेकिन मैं बहुत थक गया हूँ
        समझ सकता हूँ
        क्या आपने खाना खाया?
        अभी नहीं, खाना बनाने का मन नहीं है
        हाहा
        क्या मैं एक आसान रेसिपी बताऊँ?
        हाँ बताओ
        दाल चावल, बीस मिनट में तैयार
        बहुत बढ़िया, धन्यवाद
        कोई बात नहीं
        कल मेरी बहन आ रही है
        अरे वाह, आप लोग क्या करेंगे?
        अगर मौसम अच्छा रहा तो घूमने जाएँगे
        मज़ा आएगा
        ok
        छाता मत भूलना
        ठीक है, शुभ रात्रि""",
    "ar": """مرحبا، هل أنت هنا؟
        نعم، وصلت إلى البيت الآن
        كيف كان يومك؟
        جيد لكنني متعب جدا
        أفهمك، كان أسبوعا طويلا
        هل أكلت؟
        ليس بعد، لا أريد أن أطبخ
        ههههه
        هل تريد وصفة سهلة؟
        نعم من فضلك
        معكرونة بالثوم، جاهزة في عشر دقائق
        ممتاز، شكرا جزيلا
        عفوا
        غدا ستأتي أختي لزيارتي
        جميل! ماذا ستفعلون؟
        سنذهب إلى البحر إذا كان الجو جميلا
        رائع
        ok
        لا تنس المظلة
        حسنا، تصبح على خير""",
    "zh": """你好，在吗？
        在，刚到家
        今天过得怎么样？
        还不错，就是有点累
        理解，这周太长了
        吃饭了吗？
        还没有，不想做饭
        哈哈哈
        要不要我推荐一个简单的菜？
        好啊
        西红柿炒鸡蛋，十分钟就好
        太好了，谢谢你
        不客气
        明天我妹妹来看我
        真好！你们打算做什么？
        天气好的话我们去海边
        羡慕
        ok
        别忘了防晒霜
        好的，晚安""",
    "ja": """こんばんは、いますか？
        はい、今帰ってきました
        今日はどうでしたか？
        よかったけど、すごく疲れた
        わかります、長い一週間でしたね
        ご飯はもう食べた？
        まだ、作るのが面倒で
        笑
        簡単なレシピを教えましょうか？
        お願いします
        にんにくのパスタ、十分でできます
        いいね、ありがとう
        どういたしまして
        明日は妹が遊びに来るんだ
        楽しみですね。何をするんですか？
        天気がよければ海に行くつもり
        いいなあ
        ok
        日焼け止めを忘れないでね
        うん、おやすみ""",
    "ko": """안녕, 거기 있어?
        응, 방금 집에 왔어
        오늘 하루 어땠어?
        좋았는데 너무 피곤해
        그렇구나, 긴 한 주였지
        밥은 먹었어?
        아직, 요리하기 귀찮아
        ㅋㅋㅋ
        쉬운 레시피 알려줄까?
        좋아
        마늘 파스타, 십 분이면 돼
        최고다, 고마워
        천만에
        내일 여동생이 놀러 와
        와 좋겠다, 뭐 할 거야?
        날씨 좋으면 바다에 가려고
        부럽다
        ok
        선크림 잊지 마
        알겠어, 잘 자""",
    "ru": """Привет, ты тут?
        Да, только пришёл домой
        Как прошёл день?
        Нормально, но я очень устал
        Понимаю, неделя была длинная
        Ты уже поел?
        Ещё нет, лень готовить
        ахаха
        Хочешь простой рецепт?
        Давай
        Макароны с чесноком, десять минут и готово
        Отлично, спасибо большое
        Пожалуйста
        Завтра ко мне приедет сестра
        Здорово! Что будете делать?
        Поедем на море, если будет солнце
        Завидую
        ok
        Не забудь крем
        Хорошо, спокойной ночи""",
}


def lines_of(language: str) -> list[str]:
    """Return the lines of a language as one conversation."""
    return [line.strip() for line in LINES[language].split("\n")]
