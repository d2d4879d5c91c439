"""The words that the task families' questions are made of."""

_TOPICS = """
apples, astronauts, autumn, babies, bananas, beaches, bees, bicycles, birds, boats, books, bread, breakfast, bridges,
butterflies, cakes, camping, candles, carrots, castles, cats, cheese, chess, chickens, chocolate, cinemas, circuses,
cities, clocks, clouds, coffee, computers, cooking, cows, crabs, dancing, deserts, diamonds, doctors, dogs, dolphins,
dreams, drums, ducks, eagles, eggs, elephants, farms, fire, fish, flowers, football, forests, foxes, friends, frogs,
gardens, ghosts, glaciers, goats, gold, grandparents, guitars, hats, holidays, honey, horses, hospitals, houses, ice,
ice cream, insects, islands, jazz, kitchens, kites, lakes, lamps, languages, letters, libraries, lighthouses, lions,
maps, markets, milk, mirrors, monkeys, mountains, museums, mushrooms, music, neighbors, newspapers, night, oceans,
onions, oranges, owls, painting, paper, parks, parrots, pens, penguins, photography, pianos, picnics, pigs, pillows,
pirates, pizza, planets, plants, poetry, potatoes, puppets, puzzles, rabbits, rain, rainbows, rice, rivers, robots,
rockets, roses, running, salads, sand, schools, science, shadows, sharks, sheep, ships, shoes, silence, singing,
sleep, snakes, snow, soap, soup, spiders, spring, squirrels, stars, stories, storms, strawberries, sugar, summer,
sunsets, swimming, tea, teachers, tennis, the desert, the internet, the moon, the sea, the sky, the sun, theaters,
thunder, tigers, toys, trains, travel, trees, trucks, turtles, umbrellas, vegetables, violins, volcanoes, walking,
waterfalls, weddings, whales, wheels, wind, windows, winter, wolves, zebras
"""
TOPICS = [topic.strip() for topic in _TOPICS.replace("\n", " ").split(",")]

# Singular, with a plural in -s.
_NOUNS = """
apple arm bag ball banana bank bean bear bed bell bird blanket boat book boot bottle bowl bridge broom brother bucket
button cabin cake camel camera candle car carpet carrot castle cat chair cheek chicken circle clock cloud coat coin
cook cousin cow cup curtain dancer desk doctor dog doll door dragon dream drum duck eagle egg elbow engine farmer
father feather fence field finger flag flower forest fork friend frog garden gate giraffe girl glove goat grape guitar
hammer hand hat hill horse hotel house island jacket jar judge kettle key king kitchen kite ladder lake lamp lemon
letter lion lizard magnet map market meadow mirror monkey moon mother motor mountain nail neck needle nest nose nurse
ocean onion orange oven owl painter palace pan parrot pencil pepper piano pillow pilot planet plate pond queen rabbit
river road robot rocket roof room rope rose sailor school shark ship shirt shoe sister snake sock song spider spoon
star stone street table teacher tent tiger town toy tractor train tree truck tunnel turtle valley violin wagon wall
whale wheel window wizard worm zebra
"""
NOUNS = _NOUNS.split()

CAPITALS = {
    "Argentina": "Buenos Aires", "Austria": "Vienna", "Belgium": "Brussels", "Bulgaria": "Sofia", "Canada": "Ottawa",
    "Chile": "Santiago", "China": "Beijing", "Lebanon": "Beirut", "Croatia": "Zagreb", "Cuba": "Havana",
    "Denmark": "Copenhagen", "Egypt": "Cairo", "Ethiopia": "Addis Ababa", "Finland": "Helsinki", "France": "Paris",
    "Germany": "Berlin", "Greece": "Athens", "Hungary": "Budapest", "Iceland": "Reykjavik", "India": "Delhi",
    "Indonesia": "Jakarta", "Iran": "Tehran", "Iraq": "Baghdad", "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo",
    "Kenya": "Nairobi", "Morocco": "Rabat", "Nepal": "Kathmandu", "Norway": "Oslo", "Peru": "Lima",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Romania": "Bucharest", "Russia": "Moscow", "Spain": "Madrid",
    "Sweden": "Stockholm", "Thailand": "Bangkok", "Turkey": "Ankara", "Jamaica": "Kingston",
}  # fmt: skip
