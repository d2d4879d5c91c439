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

# More of the same, for families that ask about a word once and need many.
_MORE_NOUNS = """
acorn airport almond anchor ankle apron archer arrow author badge baker bandage banner barber barn barrel basement
basket bat battle beacon beard beetle belt bicycle biscuit blade blossom board bone border bow bracelet brain brick
bride bubble building bull bullet bumper burger butcher cable cage canal canyon cap captain cart cave ceiling cellar
chain chapel chapter chart chest chimney chin clarinet climber clown coconut collar comet cooker coral corner cottage
cradle crater crayon cricket crocodile crown cube cushion dagger dentist desert diamond dinner drawer driver ear editor
elevator emperor envelope essay falcon fan fern festival fiddle film fireplace flame flute footprint fountain freezer
furnace garage ghost giant goblet gorilla grasshopper guard guest gull gymnast hall handle harbor hawk heart hedge
helmet hen hoop horn hurricane iceberg insect iron jaguar jewel jockey juggler jungle kayak kitten knight knot laptop
lawyer leg lighthouse lip lobster lock log magazine manor mask medal melon menu miner mole moth mug muscle museum
napkin net newspaper notebook oar office officer omelet orchard organ paddle page pancake panda panther parade park
path paw pear pearl pebble pen penguin pentagon petal pigeon pin pirate pit plum pocket poem portrait poster potion
prince prison puddle pump pumpkin puppet puzzle pyramid raft rainbow ramp raven ribbon rider rifle ring robe roller
rooster ruler saddle salad sandal satellite saucer scarecrow scientist scooter screen seal seat shadow shell shelter
shovel singer sink skeleton skirt sled soldier sparrow spear squirrel stadium stair stamp station statue steak stem
stool storm stove straw stream student submarine suitcase sunset swan sweater sword tail tailor tank target taxi temple
theater throne thumb ticket tie toaster tomb tower trail trap tray treasure trumpet tulip turnip tutor uncle unicorn
vase vegetable vest village villain visitor voyage waiter wallet warrior waterfall weapon weasel wing winner workshop
wrist yacht yard zipper
"""
MORE_NOUNS = _MORE_NOUNS.split()

# Regular verbs: -ed, or -d after an e; none doubles its last letter.
_VERBS = """
accept add admire advise afford agree aim allow amuse announce answer appear applaud arrange arrive ask assist attach
attack attend avoid bake balance bark bathe behave believe bless blink blush board boil bolt bomb borrow bounce breathe
brush bump calculate call camp care carve cause challenge change charm chase cheat check cheer chew choke claim clean
clear climb close collapse collect color comb combine command communicate compare complain concentrate concern confess
confuse connect consist contain continue cook correct cough count cover crash crawl cross cure curl cycle damage dance
deceive decide decorate delay delight deliver depend describe desert destroy detect disagree disappear dislike divide
divorce doubt drain dress drown dust earn educate embarrass employ encourage end enjoy enter entertain escape examine
excite exist expand expect explain explode extend face fade fail fasten fear fetch file fill film fire fix flash float
flood flow fold follow force form frame gather gaze glow grate grease greet groan guard guess guide hammer hand happen
harm hate haunt head heal heat help hook hope hunt ignore imagine impress improve increase influence inform inject
injure instruct intend interest interfere interrupt introduce invent invite irritate itch jail join joke juggle jump
kick kill kiss land last laugh launch lick like list listen live load lock look love manage march mark match melt
memorize mend mine miss mix moan mourn move muddle murder name need nest note notice obey object observe obtain offend
offer open operate order overflow owe own pack paint park pass paste pause peel peep perform phone pick pinch place
plant play point polish possess post pour praise pray preach precede present press pretend prevent print promise
protect protest provide pull punch puncture punish push question race radiate rain raise reach realize receive
recognize record reduce reflect reign reject rejoice relax release remain remember remind remove repair repeat replace
report reproduce request rescue rest retire return rhyme rinse risk roll ruin rule rush sail save scare scold scorch
scrape scratch scream scribble seal search serve settle shade shave shelter shock shout sigh sign slow smile smoke
snatch sneeze sniff snore snow soothe sound spare spark sparkle spray sprout squash squeak squeal squeeze stain stamp
stare start stay stitch store stretch stroke stuff subtract succeed suffer suggest suit support suppose surprise
suspect suspend switch talk tame taste tease telephone tempt test thank thaw tick tickle time tire touch tour tow trace
trade train travel treat trick trouble trust tumble turn twist type undress unite unlock unpack use vanish visit wail
wait walk want warm warn wash waste watch water wave weigh welcome whisper whistle wink wipe wish wobble wonder work
wreck wrestle wriggle yawn yell zoom
"""
VERBS = _VERBS.split()

_OPPOSITES = """
hot:cold/cool up:down big:small/little/tiny fast:slow happy:sad/unhappy/miserable light:dark/heavy day:night
good:bad/evil young:old rich:poor strong:weak full:empty open:closed/shut/close early:late easy:hard/difficult
clean:dirty wet:dry high:low long:short loud:quiet/silent/soft near:far/distant new:old right:wrong/left
thick:thin/slim true:false wide:narrow brave:cowardly/afraid/fearful kind:cruel/unkind/mean sharp:dull/blunt
smooth:rough sweet:sour/bitter begin:end/finish/stop buy:sell give:take/receive win:lose love:hate laugh:cry push:pull
arrive:leave/depart remember:forget start:stop/end/finish sink:float rise:fall/set/sink summer:winter north:south
east:west inside:outside above:below/under always:never before:after first:last more:less/fewer many:few asleep:awake
alive:dead cheap:expensive deep:shallow safe:dangerous/unsafe same:different polite:rude/impolite noisy:quiet/silent
heavy:light tall:short friend:enemy/foe success:failure victory:defeat increase:decrease accept:reject/refuse/decline
build:destroy/demolish
"""
OPPOSITES = {word: others.split("/") for word, others in (pair.split(":") for pair in _OPPOSITES.split())}
"""Words and what counts as their opposite."""
