"""The small vocabulary that the skills of the built-in base model are made of. Plain words, no behaviour."""

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Karen Leo Maria Noah Olga Peter Quinn Rosa Simon
Tara Uma Victor Wendy Xavier Yara Zoe Adam Bella Carl Diana Eric Fiona George Helen Ivan Julia Kevin Laura Martin
Nina Oscar Paula Robert Sara Thomas Vera Walter Alice Bruno Cora Daniel Elena Frank Gina Hugo Inga Jonas Kira
Lukas Mila""".split()

CITIES = """Paris London Berlin Rome Madrid Vienna Prague Oslo Dublin Lisbon Athens Warsaw Zurich Geneva Milan Naples
Boston Chicago Denver Dallas Seattle Austin Toronto Montreal Tokyo Osaka Seoul Delhi Mumbai Cairo Lagos Nairobi
Sydney Perth Lima Bogota Havana Quito Hamburg Munich Lyon Porto Seville Bergen""".split()

COLOURS = """red blue green yellow white black brown orange purple pink grey gold silver violet crimson teal""".split()

ANIMALS = """cat dog horse cow sheep goat pig duck goose hen mouse rat rabbit fox wolf bear lion tiger zebra camel
whale shark seal otter beaver eagle hawk owl crow swan frog toad snake lizard turtle crab bee ant spider moth
monkey donkey panda koala""".split()

FOODS = """apple pear plum grape lemon melon cherry peach bread cheese butter honey rice pasta soup salad onion
carrot potato tomato pepper garlic bean pea corn egg fish ham steak pie cake cookie sugar salt tea coffee milk
juice""".split()

OBJECTS = """table chair lamp door window clock book pen paper box bag key coin ring cup plate bowl spoon fork knife
bottle candle mirror brush comb shirt coat hat shoe sock glove scarf belt rope chain hammer nail saw drill ladder
bucket broom wheel engine boat train truck bike plane tent blanket pillow basket drum flute piano violin guitar
camera phone radio stone brick""".split()

NATURE = """river lake sea hill mountain valley forest tree leaf flower grass sand cloud rain snow wind storm sun moon
star fire ice field garden island beach""".split()

JOBS = """doctor teacher farmer baker painter pilot sailor singer writer lawyer nurse judge driver cook miner tailor
dancer soldier""".split()

ADJECTIVES = """big small tall short long old new young fast slow hot cold warm dark light heavy soft hard wet dry clean
dirty loud quiet happy sad kind brave wise rich poor sweet bitter sharp round flat deep""".split()

THINGS = ANIMALS + FOODS + OBJECTS + NATURE
WORDS = THINGS + COLOURS + JOBS + ADJECTIVES
