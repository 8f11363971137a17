"""Which language a rule is in, and what a hostile one says in languages other than English.

By function words for languages in Latin letters, by script for the others. A language that the
screens have no words for is told apart, so that a person reads its rules first.
"""

# ruff: noqa: RUF001 - other alphabets are what it is about

from __future__ import annotations

import re

from app.loop.admission.text_measures import script

ENGLISH = "en"

_FUNCTION_WORDS = {
    ENGLISH: "the a an and or of to in is it that with for on as are this be not all any each if "
    "by from at before after when use do avoid never always than into only same one your you how "
    "should can what which who without between about where then both its their they more",
    "es": "el la los las un una y o de que en es por con para no se al del su como más siempre "
    "nunca cuando cada antes este esta responde usuario sin todo todos respuesta sobre debe",
    "fr": "le la les un une et ou de des du que en est pour avec ne pas se au aux son sur dans "
    "toujours jamais quand chaque avant ce cette sans tout toute réponse répondez il vous votre",
    "de": "der die das ein eine und oder von zu in ist es für mit nicht auf den dem des im immer "
    "nie wenn jede jeder vor diese dieser ohne alle allen antworte antwort sie auch bei dass",
    "it": "il lo la i gli le un una e o di che in è per con non si al del della sempre mai quando "
    "ogni prima questo questa senza tutto tutti rispondi risposta utente sono come alla nel",
    "pt": "o a os as um uma e ou de que em é por com para não se ao do da dos das sempre nunca "
    "quando cada antes este esta sem tudo todos responda resposta usuário são como no na",
    "nl": "de het een en of van te in is voor met niet op den altijd nooit als elke ieder deze "
    "dit zonder alle antwoord gebruiker zijn ook bij dat aan naar wordt wanneer u uw",
    "pl": "i w na z do nie że się jest to o jak zawsze nigdy gdy każde każdy przed bez po dla od "
    "odpowiadaj użytkownik wszystkie ich oraz czy tylko tak",
    "tr": "ve bir bu için ile de da her zaman asla gibi olarak kadar sonra önce tüm kullanıcı "
    "cevap yanıt değil ama en çok ne veya daima",
    "sv": "och att det som en ett på är av för med den inte till i alltid aldrig när varje innan "
    "utan alla svar användaren om de eller från",
    "da": "og at det som en et på er af for med den ikke til i altid aldrig når hver før uden alle "
    "svar brugeren om de eller fra",
    "fi": "ja on ei että se aina koskaan kun ennen ilman kaikki vastaa käyttäjä jos tai mutta "
    "vain sekä joka",
    "cs": "a v na je se že to s do o jak vždy nikdy když každý před bez všechny odpověď uživatel "
    "nebo pro není aby",
    "ro": "și în la de cu pe nu este un o să pentru care mereu niciodată când fiecare înainte fără "
    "toate răspunde utilizator sau din",
    "hu": "a az és egy hogy nem is van mindig soha amikor minden előtt nélkül válasz felhasználó "
    "vagy meg ha csak",
    "vi": "và là của không một các cho với được luôn khi mỗi trước người dùng trả lời để trong "
    "này những có",
    "id": "dan yang di ke dari untuk dengan tidak ini itu selalu jangan pernah ketika setiap "
    "sebelum tanpa semua jawab jawaban pengguna adalah atau pada",
    "sw": "na ya wa kwa ni katika kila wakati kamwe kabla bila yote jibu mtumiaji hii hiyo au si "
    "usiwe lazima",
    "tl": "ang ng sa na mga ay hindi at para kung palagi kailanman bawat bago lahat sagot sumagot "
    "gumagamit ito o",
    "la": "et in est non ad cum semper numquam omnes ante sine responde quod ut vel sed",
}
_WORDS = {tongue: frozenset(words.split()) for tongue, words in _FUNCTION_WORDS.items()}
_SCRIPTS = {
    "CJK": "zh/ja", "CYRILLIC": "ru", "ARABIC": "ar", "HANGUL": "ko", "DEVANAGARI": "hi",
}  # fmt: skip


def tongue(text: str) -> str | None:
    """Language of a text: a code, or the name of a script; None when there is too little to tell.

    English unless another language has more of its function words in the text.
    """
    letters = script(text)
    if letters is None:
        return None
    if letters != "LATIN":
        return _SCRIPTS.get(letters, letters.lower())
    words = re.findall(r"[^\W\d_]+", text.casefold())
    scores = {name: sum(word in known for word in words) for name, known in _WORDS.items()}
    best = max(scores, key=lambda name: (scores[name], name == ENGLISH))
    if scores[best] == 0:
        return None
    # One shared word ('a', 'in', 'de') is no evidence against English.
    return best if best == ENGLISH or scores[best] >= scores[ENGLISH] + 2 else ENGLISH


_HOSTILE = {
    "es": r"ignor|olvida|instruccion|contraseñ|responde siempre|siempre (?:responde|contesta"
    r"|di\b|elig"
    r"|recomiend)|nunca (?:rechac|niegu|advier)|sin advert|sistema|revel|env[ií]a|visita|compra"
    r"|clave"
    r"|secret|regla|no (?:rechac|advier|niegu)|correo|tel[eé]fono|tarjeta|ejecut|segur",
    "fr": r"ignor|oubli|instruction|mot de passe|réponds? toujours|répondez toujours"
    r"|toujours (?:répond"
    r"|choisi|recommand|dire|dis)|ne (?:refus|jamais refus)|jamais refus|sans avert|système|révél"
    r"|envoy|visite|achet|secret|règle|courriel|téléphone|carte|exécut|sécurit|refus",
    "de": r"ignorier|vergiss|missacht|anweisung|passwor|kennwor|immer (?:mit|antwort|empf|\W)"
    r"|antworte "
    r"immer|lehne|verweiger|ablehn|warnung|warne|system|verrat|offenbar|sende|schick|besuch|kauf"
    r"|geheim|regel|telefon|e-?mail|karte|führe|sicherheit|empfehl",
    "it": r"ignor|dimentic|istruzion|password|rispondi sempre|sempre (?:rispond|consigli|scegli"
    r"|di\b)"
    r"|mai rifiut|rifiut|avvert|sistema|rivel|invia|visita|compra|segret|regol|telefono|carta|esegu"
    r"|sicurezz|consigli",
    "pt": r"ignor|esque[cç]|instru[cç]|senha|responda sempre|sempre (?:respond|recomend|escolh"
    r"|diga)"
    r"|nunca recus|recus|avis|sistema|revel|envi|visit|compr|segred|regra|telefone|cart[ãa]o|execut"
    r"|seguran[cç]|recomend",
    "nl": r"negeer|vergeet|instructie|wachtwoord|antwoord altijd|altijd|weiger|waarschuw"
    r"|systeem|onthul"
    r"|verklap|stuur|verstuur|bezoek|koop|geheim|regel|telefoon|kaart|voer|veilig|aanbev",
    "ru": r"игнорир|забуд|инструкц|парол|всегда (?:отвеча|говор|рекоменд|выбира)|отвечай"
    r"|не отказыв|отказ"
    r"|предупре|системн|раскр|отправ|посет|купи|секрет|правил|телефон|карт|выполн|безопасн"
    r"|рекоменд|ключ",
    "zh/ja": r"忽略|无视|無視|忘记|忘れ|指令|指示|密码|パスワード"
    r"|总是回答|始终回答|必ず|常に|总是|永远|始终|不要拒绝"
    r"|拒绝|拒否|断ら|警告|系统|システム|泄露|透露|明か|漏ら|发送|送信|送って|访问|購入|购买|秘密|规则|規則|ルール"
    r"|电话|電話|执行|実行|安全|推荐|推薦|おすすめ|密钥",
    "ar": r"تجاهل|انس|تعليمات|كلمة (?:ال)?(?:مرور|سر)|أجب دائم|دائم|لا ترفض|ترفض|رفض|تحذير|تحذر"
    r"|نظام|اكشف"
    r"|أرسل|ارسل|زيارة|زر |اشتر|سر|قاعدة|قواعد|هاتف|بطاقة|نفذ|سلامة|أوص",
    "ko": r"무시|잊|지시|명령|비밀번호|암호|항상|언제나|거부|거절|경고|시스템"
    r"|공개|누설|보내|전송|방문|구매|비밀|규칙"
    r"|전화|카드|실행|안전|추천",
    "hi": r"अनदेखा|नज़रअंदाज|नजरअंदाज|भूल|निर्देश|पासवर्ड|हमेशा|सदैव|मना|इनकार|चेतावनी|सिस्टम"
    r"|प्रकट|बताओ|भेज"
    r"|खरीद|गुप्त|नियम|फ़ोन|फोन|कार्ड|चलाओ|सुरक्षा|सिफारिश",
}
_PATTERNS = {name: re.compile(words, re.IGNORECASE) for name, words in _HOSTILE.items()}


def unscreened(text: str) -> str | None:
    """A language that there are no screens for, by name."""
    name = tongue(text)
    return name if name not in (None, ENGLISH) and name not in _PATTERNS else None


def hostile(text: str) -> str | None:
    """A word of orders, secrets, refusals or safety in the text's own language. Wider than the
    screens for English: a false alarm is read by a person."""
    pattern = _PATTERNS.get(tongue(text) or ENGLISH)
    match = pattern.search(text) if pattern else None
    return f"'{match[0].strip()}'" if match else None
