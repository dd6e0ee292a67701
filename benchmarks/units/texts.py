"""Passages for language models to be scored and measured on, written for this."""

REFERENCE = (
    "The river rises in the hills north of the town and runs slowly through flat "
    "meadows until it meets the sea. In spring, when the snow melts, it leaves its "
    "bed and covers the fields for several weeks. The farmers do not mind. They know "
    "that the water brings the soil that their vegetables need, and they have built "
    "their houses on the few low hills where the flood has never come. Only the road "
    "has to be repaired each year, and the bridge, which is made of wood, has been "
    "replaced three times since the war.",
    "To bake a simple bread you need flour, water, salt and a little yeast. Mix the "
    "flour with the salt, stir the yeast into warm water, and pour it slowly into the "
    "bowl. Knead the dough for ten minutes until it is smooth, then cover it with a "
    "cloth and let it rest in a warm place for an hour. When it has doubled in size, "
    "shape it into a loaf and put it into the hot oven. After forty minutes the crust "
    "should be brown, and the loaf should sound hollow when you knock on its bottom "
    "with your hand.",
    "A computer stores numbers as rows of switches, each of which is either on or "
    "off. With eight of them it can tell two hundred and fifty six numbers apart, and "
    "with more it can count as far as anyone would like. Fractions are harder. Most "
    "of them cannot be written with a finite number of digits, and so the machine "
    "keeps only the first ones and forgets the rest. As long as the errors stay small "
    "nobody notices, but a program that adds a million of them may well return a "
    "result that is simply wrong.",
    "My grandmother came to the city when she was sixteen years old. She had one "
    "suitcase, the address of an aunt, and enough money for two weeks. The aunt had "
    "moved away, but a neighbour let her sleep in the kitchen and helped her to find "
    "work in a factory that made shoes. She stayed there for eleven years. In the "
    "evenings she went to school, and on Sundays she wrote long letters to her "
    "parents, in which everything was always going well. She never told them about "
    "the kitchen, and they never asked.",
)
"""Units get their scores on these."""

HELD_OUT = (
    "Bees find their way by the sun. When one of them has discovered a tree full of "
    "flowers, she flies home and dances on the comb, and the others follow her steps "
    "in the dark. The direction of the dance tells them where to fly, and its speed "
    "how far. Even on a cloudy day they are not lost, because their eyes can see in "
    "which direction the light of the sky is polarised. Nobody taught them this. A "
    "young bee that has never left the hive before dances as well as an old one, "
    "although she makes a few mistakes on her first attempts.",
    "The meeting began at nine o'clock and was expected to last for one hour. By noon "
    "the committee had agreed on the date of the next meeting and on very little "
    "else. The mayor wanted a new library, the treasurer wanted to know who would pay "
    "for it, and the owner of the bookshop, who had been invited as a guest, "
    "explained at length why the town did not need one. In the end they decided to "
    "ask an expert for a report. It would cost almost as much as the books, but it "
    "would take at least a year to write.",
    "If you want to learn a language, speak it every day, even if it is only for a "
    "few minutes. Grammar is useful, but nobody has ever learned to swim by reading "
    "about water. Listen to songs, read simple stories, and do not stop at each word "
    "that you do not know. Make mistakes and let others correct you. After some "
    "months you will notice that you understand a joke without translating it first. "
    "That is the moment at which the language begins to belong to you, and from then "
    "on it becomes easier.",
    "The old lighthouse stands at the end of a narrow path, a mile beyond the last "
    "house of the village. Its lamp was switched off thirty years ago, when ships no "
    "longer needed it, and since then only birds have lived there. Last summer two "
    "students from the university spent a month inside in order to count them. They "
    "found forty pairs of gulls, a family of owls, and on the wall of the highest "
    "room a list of names and dates that the keepers had written with a pencil during "
    "long winter nights.",
)
"""Their perplexity is measured."""
