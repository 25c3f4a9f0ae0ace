"""Texts of the demo world: six topics in ten languages, seven scripts.

Every text is a sentence pattern of its language filled with words of its topic, now and then with a word of another
topic, so that no single word gives a topic away and every language has to be learned. Hashtags and emoji are what
the languages have in common.
"""

import numpy as np

TOPICS = ("cooking", "cycling", "astronomy", "gardening", "jazz", "football")
LANGUAGES = ("en", "es", "de", "fr", "pt", "ar", "hi", "zh", "ja", "th")
# Shares of the languages among posts and users.
LANGUAGE_SHARES = (0.26, 0.12, 0.09, 0.08, 0.08, 0.08, 0.06, 0.08, 0.08, 0.07)
# Written without white space between words.
UNSPACED = frozenset({"zh", "ja", "th"})

WORDS: dict[str, dict[str, str]] = {
    "cooking": {
        "en": "recipe oven garlic dough simmer kitchen broth pan spices roast butter onion sauce baking",
        "es": "receta horno ajo masa cocina caldo sartén especias cebolla salsa guiso mantequilla",
        "de": "Rezept Ofen Knoblauch Teig Küche Brühe Pfanne Gewürze Zwiebel Soße Butter Auflauf",
        "fr": "recette four ail pâte cuisine bouillon poêle épices oignon sauce beurre mijoter",
        "pt": "receita forno alho massa cozinha caldo frigideira temperos cebola molho manteiga assado",
        "ar": "وصفة فرن ثوم عجين مطبخ مرق مقلاة توابل بصل صلصة زبدة طبخ",
        "hi": "रसोई मसाला लहसुन आटा तड़का प्याज़ सब्ज़ी कड़ाही मक्खन नुस्खा चटनी पकाना",
        "zh": "菜谱 烤箱 大蒜 面团 厨房 高汤 炒锅 香料 洋葱 酱汁 黄油 炖肉",
        "ja": "レシピ オーブン にんにく 生地 台所 だし フライパン 香辛料 玉ねぎ ソース バター 煮込み",
        "th": "สูตรอาหาร เตาอบ กระเทียม แป้ง ครัว น้ำซุป กระทะ เครื่องเทศ หัวหอม ซอส เนย ผัด",
    },
    "cycling": {
        "en": "bike pedals gravel climb helmet saddle chain sprint peloton wheels gears descent route tyre",
        "es": "bicicleta pedales grava puerto casco sillín cadena esprint pelotón ruedas descenso ruta",
        "de": "Fahrrad Pedale Schotter Anstieg Helm Sattel Kette Radweg Peloton Reifen Abfahrt Gangschaltung",
        "fr": "vélo pédales gravier montée casque selle chaîne échappée peloton roues descente braquet",
        "pt": "bicicleta pedais cascalho subida capacete selim corrente pelotão rodas descida ciclovia pneu",
        "ar": "دراجة دواسات حصى تسلق خوذة سرج سلسلة عجلات منحدر مسار إطار دراجين",
        "hi": "साइकिल पैडल चढ़ाई हेलमेट गद्दी चेन पहिया ढलान सवारी टायर गियर पगडंडी",
        "zh": "自行车 踏板 碎石路 爬坡 头盔 车座 链条 冲刺 车轮 下坡 骑行 轮胎",
        "ja": "自転車 ペダル 砂利道 登り坂 ヘルメット サドル チェーン 集団 車輪 下り坂 変速 タイヤ",
        "th": "จักรยาน บันไดปั่น ทางลูกรัง ขึ้นเขา หมวกกันน็อก อานนั่ง โซ่ ล้อ ลงเขา ปั่น เกียร์ ยางรถ",
    },
    "astronomy": {
        "en": "telescope nebula galaxy comet eclipse orbit stars Saturn lens meteor cluster moonrise eyepiece",
        "es": "telescopio nebulosa galaxia cometa eclipse órbita estrellas Saturno meteoro cúmulo ocular luna",
        "de": "Teleskop Nebel Galaxie Komet Finsternis Umlaufbahn Sterne Saturn Meteor Sternhaufen Okular Mond",
        "fr": "télescope nébuleuse galaxie comète éclipse orbite étoiles Saturne météore amas oculaire lune",
        "pt": "telescópio nebulosa galáxia cometa eclipse órbita estrelas Saturno meteoro aglomerado ocular lua",
        "ar": "تلسكوب سديم مجرة مذنب كسوف مدار نجوم زحل نيزك عنقود عدسة قمر",
        "hi": "दूरबीन निहारिका आकाशगंगा धूमकेतु ग्रहण कक्षा तारे शनि उल्का नक्षत्र लेंस चाँद",
        "zh": "望远镜 星云 银河 彗星 日食 轨道 恒星 土星 流星 星团 目镜 月亮",
        "ja": "望遠鏡 星雲 銀河 彗星 日食 軌道 恒星 土星 流星 星団 接眼レンズ 月",
        "th": "กล้องดูดาว เนบิวลา กาแล็กซี ดาวหาง สุริยุปราคา วงโคจร ดวงดาว ดาวเสาร์ ดาวตก กระจุกดาว เลนส์ พระจันทร์",
    },
    "gardening": {
        "en": "seedlings compost tomatoes pruning roses soil greenhouse mulch tulips watering bulbs hedge harvest",
        "es": "plántulas compost tomates poda rosas tierra invernadero tulipanes riego bulbos huerto cosecha",
        "de": "Setzlinge Kompost Tomaten Rosen Erde Gewächshaus Mulch Tulpen Gießen Zwiebelblumen Hecke Beet",
        "fr": "semis compost tomates taille roses terre serre paillis tulipes arrosage bulbes potager",
        "pt": "mudas composto tomates poda rosas terra estufa tulipas rega bulbos horta colheita",
        "ar": "شتلات سماد طماطم تقليم ورود تربة دفيئة بذور سقي بستان حصاد حديقة",
        "hi": "पौधे खाद टमाटर छँटाई गुलाब मिट्टी क्यारी बीज सिंचाई बगीचा फूल फसल",
        "zh": "幼苗 堆肥 番茄 修剪 玫瑰 土壤 温室 郁金香 浇水 种子 花园 收获",
        "ja": "苗 堆肥 トマト 剪定 薔薇 土 温室 チューリップ 水やり 種まき 庭 収穫",
        "th": "ต้นกล้า ปุ๋ยหมัก มะเขือเทศ ตัดแต่งกิ่ง กุหลาบ ดิน เรือนกระจก ทิวลิป รดน้ำ เมล็ด สวน เก็บเกี่ยว",
    },
    "jazz": {
        "en": "saxophone trumpet swing improvisation bebop chords quartet vinyl groove bassline drummer solo ballad",
        "es": "saxofón trompeta improvisación acordes cuarteto vinilo ritmo contrabajo baterista solo balada piano",
        "de": "Saxophon Trompete Improvisation Akkorde Quartett Schallplatte Rhythmus Kontrabass Solo Ballade Klavier",
        "fr": "saxophone trompette improvisation accords quatuor vinyle rythme contrebasse batteur solo ballade piano",
        "pt": "saxofone trompete improviso acordes quarteto vinil ritmo contrabaixo baterista solo balada piano",
        "ar": "ساكسفون بوق ارتجال أوتار رباعي أسطوانة إيقاع كونترباص طبول عزف لحن بيانو",
        "hi": "सैक्सोफोन तुरही आलाप सुर चौकड़ी रिकॉर्ड ताल बेस ढोलक धुन संगीत पियानो",
        "zh": "萨克斯 小号 即兴 和弦 四重奏 黑胶 节奏 低音提琴 鼓手 独奏 旋律 钢琴",
        "ja": "サックス トランペット 即興 和音 四重奏 レコード リズム ベース ドラム 独奏 旋律 ピアノ",
        "th": "แซกโซโฟน ทรัมเป็ต ด้นสด คอร์ด วงสี่ชิ้น แผ่นเสียง จังหวะ เบส กลอง โซโล ทำนอง เปียโน",
    },
    "football": {
        "en": "goal penalty striker keeper midfield derby offside referee corner league kickoff defender stadium",
        "es": "gol penalti delantero portero centrocampista derbi árbitro córner liga defensa estadio fichaje",
        "de": "Tor Elfmeter Stürmer Torwart Mittelfeld Derby Abseits Schiedsrichter Ecke Liga Anpfiff Stadion",
        "fr": "but penalty attaquant gardien milieu derby arbitre corner ligue défenseur stade mercato",
        "pt": "gol pênalti atacante goleiro meia clássico impedimento árbitro escanteio liga zagueiro estádio",
        "ar": "هدف ركلة مهاجم حارس وسط ديربي تسلل حكم ركنية دوري مدافع ملعب",
        "hi": "गोल पेनल्टी स्ट्राइकर गोलकीपर मिडफील्ड मुकाबला ऑफसाइड रेफरी कॉर्नर लीग डिफेंडर स्टेडियम",
        "zh": "进球 点球 前锋 门将 中场 德比 越位 裁判 角球 联赛 后卫 球场",
        "ja": "ゴール ペナルティ フォワード キーパー 中盤 ダービー オフサイド 審判 コーナー リーグ 守備 競技場",
        "th": "ประตู จุดโทษ กองหน้า ผู้รักษาประตู กองกลาง ดาร์บี้ ล้ำหน้า กรรมการ เตะมุม ลีก กองหลัง สนาม",
    },
}
HASHTAGS = {
    "cooking": "cooking foodie homemade cocina 料理",
    "cycling": "cycling bikelife roadbike ciclismo 自転車",
    "astronomy": "astronomy nightsky astro astronomía 天文",
    "gardening": "gardening growyourown plants Garten ガーデニング",
    "jazz": "jazz livemusic bebop ジャズ الجاز",
    "football": "football matchday fútbol Fußball サッカー",
}
EMOJI = {
    "cooking": "🍲 🍳 🧄 👩‍🍳 🥘",
    "cycling": "🚴 🚲 🚵‍♀️ ⛰️",
    "astronomy": "🔭 🌌 🪐 ☄️ 🌙",
    "gardening": "🌱 🌷 🍅 🪴 👩🏽‍🌾",
    "jazz": "🎷 🎺 🎹 🥁",
    "football": "⚽ 🥅 🏟️ 🧤",
}
SMALL_TALK_EMOJI = "😀 ❤️ 🙏 🔥 👍🏽"
PATTERNS = {
    "en": (
        "Today: {0} and {1}, more {2} tomorrow",
        "Does anyone know more about {0}? I only have {1}",
        "Finally some time for {0}, {1} and {2}!",
        "My first {0}. Not perfect, but the {1} was worth it",
    ),
    "es": (
        "Hoy toca {0} y {1}, mañana más {2}",
        "¿Alguien sabe algo de {0}? Yo solo tengo {1}",
        "Por fin tiempo para {0}, {1} y {2}",
    ),
    "de": (
        "Heute {0} und {1}, morgen mehr {2}",
        "Kennt sich jemand mit {0} aus? Ich habe nur {1}",
        "Endlich Zeit für {0}, {1} und {2}",
    ),
    "fr": (
        "Aujourd'hui {0} et {1}, demain encore {2}",
        "Quelqu'un connaît {0} ? Moi j'ai juste {1}",
        "Enfin du temps pour {0}, {1} et {2}",
    ),
    "pt": (
        "Hoje tem {0} e {1}, amanhã mais {2}",
        "Alguém entende de {0}? Eu só tenho {1}",
        "Enfim tempo para {0}, {1} e {2}",
    ),
    "ar": (
        "اليوم {0} و {1} وغدا المزيد من {2}",
        "هل يعرف أحد شيئا عن {0} ؟ عندي فقط {1}",
        "أخيرا وقت ل {0} و {1} و {2}",
    ),
    "hi": (
        "आज {0} और {1}, कल फिर {2}",
        "क्या कोई {0} के बारे में जानता है? मेरे पास बस {1} है",
        "आखिर {0}, {1} और {2} के लिए समय मिला",
    ),
    "zh": ("今天是{0}和{1},明天还有{2}。", "有人了解{0}吗?我只有{1}。", "终于有时间享受{0}、{1}和{2}了!"),
    "ja": (
        "今日は{0}と{1}、明日も{2}です。",
        "{0}に詳しい人いますか?{1}だけあります。",
        "やっと{0}と{1}と{2}の時間ができた!",
    ),
    "th": ("วันนี้{0}กับ{1}พรุ่งนี้มี{2}อีก", "มีใครรู้เรื่อง{0}บ้างฉันมีแค่{1}", "ในที่สุดก็มีเวลาให้{0}{1}และ{2}"),
}


def draw(rng: np.random.Generator, words: str, count: int = 1) -> list[str]:
    """`count` different words of a list written as one string."""
    return [str(word) for word in rng.choice(words.split(), count, replace=False)]


def topic_words(rng: np.random.Generator, topic: str, lang: str, count: int, stray: float) -> list[str]:
    """`count` words of a topic in a language, each with probability `stray` one of any topic instead."""
    words = draw(rng, WORDS[topic][lang], count)
    return [draw(rng, WORDS[str(rng.choice(TOPICS))][lang])[0] if rng.random() < stray else word for word in words]


def sentence(rng: np.random.Generator, topic: str, lang: str) -> str:
    """One sentence about a topic: a pattern of the language, sometimes some words more, sometimes emoji."""
    text = str(rng.choice(PATTERNS[lang])).format(*topic_words(rng, topic, lang, 3, stray=0.12))
    if rng.random() < 0.5:
        more = topic_words(rng, topic, lang, 3, stray=0.12)
        text += ("" if lang in UNSPACED else " … ") + ("" if lang in UNSPACED else " ").join(more)
    if rng.random() < 0.3:
        text += " " + draw(rng, EMOJI[topic])[0]
    if rng.random() < 0.2:
        text += " " + draw(rng, SMALL_TALK_EMOJI)[0]
    if rng.random() < 0.06:
        text += " https://example.org/" + str(rng.integers(10_000)) + " @someone"
    return text


def hashtags(rng: np.random.Generator, topic: str) -> list[str]:
    """No, one or two hashtags of a topic, without the sign; rarely one of another topic."""
    count = int(rng.choice(3, p=(0.45, 0.35, 0.2)))
    return [draw(rng, HASHTAGS[str(rng.choice(TOPICS)) if rng.random() < 0.1 else topic])[0] for _ in range(count)]
