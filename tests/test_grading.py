"""The offline grader: clear-cut gradings, attacks, texts of any kind, and GPT-4.1's verdicts."""

import doctest
import json
import random
import time
import zlib
from pathlib import Path

import pytest
import regex as re
from hypothesis import given, settings
from hypothesis import strategies as st

import sealkit
from sealkit.tasks import grading, tokens

CASES = Path(__file__).parents[2] / "shared" / "cases" / "grading.jsonl"

# Clear-cut gradings, written before the rule: "kind: said = answer; ...", where "=" is right and
# "≠" is wrong
OWN = r"""
date: 4th of July, 1776 = July 4, 1776; 1969-07-20 = 20 July 1969; July 20th, 1969 = 20 July 1969; Dec. 25 = December 25
date: 12/25/1991 = December 25, 1991; 25.12.1991 = December 25, 1991; It happened on 11 November 1918. = November 11, 1918
date: July 20, 1968 ≠ July 20, 1969; 21 July 1969 ≠ 20 July 1969; 1969-08-20 ≠ July 20, 1969; July ≠ June; 1968 ≠ 1969
date: in the spring of 1991 ≠ autumn of 1991; Sept 1939 = September 1939; 1939 ≠ September 1, 1938
ordinal: third = 3rd; the 22nd = twenty-second; ninth ≠ 19th; 5th Avenue ≠ 6th Avenue; first ≠ second; fortieth = 40th
fraction: 1/2 = one half; two-thirds = 2/3; ½ = 0.5; 3/4 = three quarters; one third ≠ two thirds; 1/4 ≠ 1/3; 2½ = 2.5
percent: 12 % = 12 percent; twelve per cent = 12%; 12% ≠ 21%; 7.5% = 7.5 percent; about 40% = 40 percent
currency: 20 dollars = $20; $1.5 million = 1.5 million dollars; €20 ≠ £20; 20 yen ≠ 20 dollars; $20 ≠ $200; ¥300 = 300 yen
currency: 5 euros = €5; £1,000 = 1000 pounds; $2 billion ≠ $2 million
score: 4–2 = 4-2; 2-4 ≠ 4-2; 21 to 14 = 21-14; 14 to 21 ≠ 21-14; 3:2 ≠ 2:3; 6-0 ≠ 6-1
range: 1939–45 ≠ 1914–18; from 1861 to 1865 = 1861-1865; 10 to 20 = 10–20; 10-20 ≠ 20-30; between 5 and 7 = 5 and 7
roman: Louis XIV ≠ Louis XVI; Henry VIII = Henry the Eighth; Rocky IV ≠ Rocky V; Elizabeth I ≠ Elizabeth II
roman: Pope Pius XII = Pius XII; World War 2 = World War II; Type I ≠ Type II; Apollo XI = Apollo 11; Article IX ≠ Article XI
letter: vitamin B12 ≠ vitamin B6; vitamin D ≠ vitamin K; hepatitis B ≠ hepatitis A; grade A- ≠ grade A+; C# ≠ C++; B+ = B+
letter: Plan B ≠ Plan A; blood type O ≠ blood type A; H2O = H₂O; CO ≠ CO2; Group C = group C; A minor ≠ B minor; AB- ≠ AB+
symbol: Na+ ≠ Na-; F# = F#; F ≠ F#; AT&T = AT&T; R&D ≠ R&B; Canal+ = Canal+; C ≠ C#
name: Einstein = Albert Einstein; Ada King Lovelace = Ada Lovelace; George H. W. Bush ≠ George W. Bush; Dr. Smith = Smith
name: J. K. Rowling = J.K. Rowling; Johann Bach ≠ Johann Strauss; Queen Victoria = Victoria; Marie Curie ≠ Pierre Curie
name: Robert F. Kennedy ≠ John F. Kennedy; Charles Robert Darwin = Charles Darwin; President Lincoln = Abraham Lincoln
name: van ≠ Ludwig van Beethoven; Beethoven = Ludwig van Beethoven; Mary ≠ Marie; Mr. Jones = Jones; Johnson ≠ Johnston
partial: Street ≠ Baker Street; river ≠ Amazon River; the Amazon = Amazon River; Lake ≠ Lake Victoria; war ≠ Vietnam War
partial: University ≠ Stanford University; Stanford = Stanford University; York ≠ New York; South ≠ South Africa; king ≠ King George
partial: Saint ≠ Saint Petersburg; the ≠ The Beatles; Beatles = The Beatles; Republic ≠ Czech Republic; theory ≠ string theory
plural: boxes = box; mice = mouse; children = child; a tooth = teeth; women = woman; leaf = leaves; berries = berry; men ≠ women
possessive: Newton's = Newton; Hubble’s law = Hubble's law; the nurses' strike = nurses strike; St John's = Saint John's
hyphen: well-known = well known; X ray = X-ray; co-operation = cooperation; twenty-one = twenty one; e-mail = email
abbreviation: U.S.A. = USA; Washington D.C. = Washington, DC; N.A.S.A. = NASA; Ph.D. = PhD; U.S. ≠ U.K.; UN ≠ EU; a.k.a. ≠ USA
unit: 10 kg = 10 kilograms; 10 kg ≠ 10 g; 1 km = 1000 m; 60 minutes = 1 hour; 3 feet ≠ 3 meters; 5 km² = 5 square kilometers
unit: 100 km/h = 100 kilometers per hour; 12 inches = 1 foot; two weeks = 14 days; 5 days ≠ 5 hours; 8 GB ≠ 8 MB
unit: 70 mph = 70 miles per hour; 40 hp ≠ 40 kW; 3 litres = 3 liters; 250ml = 250 ml; six feet = 6 ft
temperature: 20 °C = 20 degrees Celsius; 20°F ≠ 20°C; -40 ≠ 40; minus ten degrees = -10 degrees; 100 °C = 100 degrees
negation: not guilty ≠ guilty; guilty ≠ not guilty; it wasn't Paris ≠ Paris; never = never; isn't legal ≠ legal; no one ≠ one
negation: without sugar ≠ sugar; they could not fly ≠ fly; not Rome but Milan = Milan; neither Rome nor Milan ≠ Rome
negation: yes = yes; Yes. = yes; no ≠ yes; No, it did not. = no; not allowed = not allowed; cannot swim ≠ can swim
comparative: fewer than 10 ≠ more than 10; over 10 = more than 10; over $50 = more than $50; over 5 million dollars = more than $5 million; larger ≠ smaller; under 18 ≠ over 18; up to 5 ≠ at least 5
comparative: after the war ≠ before the war; the rise of prices ≠ the fall of prices; faster ≠ slower; above ≠ below
compass: east ≠ west; Northern Ireland ≠ Southern Ireland; North Dakota ≠ South Dakota; the north = north; left ≠ right
compass: South Carolina ≠ North Carolina; West Germany ≠ East Germany; northeast = north-east; upper Egypt ≠ lower Egypt
century: 18th century = eighteenth century; 17th century ≠ 18th century; the 1980s ≠ the 1990s; 1980s = the 1980's
century: early 1990s ≠ late 1990s; the nineteen hundreds ≠ the 1800s; in the 1920s = 1920s; 1920 ≠ 1920s
time: 3 pm = 3 p.m.; 3 am ≠ 3 pm; 15:00 = 3 pm; 10:30 = 10:30 a.m.; 10:30 ≠ 10:45; 7:00 PM = 7 pm; noon ≠ midnight
era: 44 BC = 44 B.C.; 44 AD ≠ 44 BC; 44 BCE = 44 BC; 500 ≠ 500 BC; AD 79 = 79 AD; 79 CE = 79 AD
number: 1,000,000 = one million; 1.5 million = 1500000; 2 dozen = 24; a hundred = 100; 12,5 ≠ 125; seventeen ≠ seventy
number: nineteen ≠ ninety; zero = 0; 007 = 7; 3.14 ≠ 3.15; a million = 1,000,000; half a million = 500,000; 1e3 ≠ 13
number: 12 million ≠ 12; five ≠ 5 million; forty-two people = 42; two hundred and six = 206; +5 = 5; 1000 ≠ 100; 101 ≠ 1001
cjk: 東京 = 東京; 大阪 ≠ 東京; 北京是首都 = 北京; 京 ≠ 北京; 東京都 = 東京; さくら ≠ さくま; 서울은 ≠ 부산; ハン ≠ パン; １９８５年 = 1985
cyrillic: Москва = Москва; москва = Москва; Киев ≠ Москва; Лев Толстой = Толстой; Алексей Толстой ≠ Лев Толстой
arabic: القاهرة = القاهرة; بغداد ≠ القاهرة; ١٩٨٥ = 1985; शिमला = शिमला; दिल्ली ≠ दिल्ला; ירושלים ≠ תל אביב
german: die Straße = Strasse; München = Munchen; der Hund ≠ die Katze; Österreich = Osterreich; Bäcker = Backer; Haus ≠ Maus
french: l'école = école; café = cafe; élève ≠ école; le ≠ le chat; la mer ≠ la terre; Besançon = Besancon; señor = senor
accent: São Paulo = Sao Paulo; Zürich = Zurich; naïve = naive; Škoda = Skoda; Lodz = Łódź; Ørsted = Orsted
width: １２３ = 123; ＡＢＣ = ABC; ２０２４ ≠ 2023; x² = x2; "Paris" = Paris; “Paris” = Paris; **Paris** = Paris; Paris! = paris
or: Paris or London ≠ Paris; either red or blue ≠ red; 1990 or 1991 ≠ 1990; heads or tails = heads or tails; cat/dog ≠ cat
or: It is Paris, or maybe London. ≠ Paris; Smith or Jones or Brown ≠ Jones; yes or no ≠ yes; yes or no ≠ no
and: blue and red = red and blue; salt, pepper and oil = oil, salt, pepper; red ≠ red and blue; tin and zinc = tin & zinc
and: Tom and Jerry = Jerry and Tom; copper and zinc ≠ copper and tin; Paris ≠ Paris and London; A, B and C = C, B, A
list: Paris, London, Rome, Berlin ≠ Paris; 1990, 1991, 1992, 1993 ≠ 1991; baker, smith, cook, guard, clerk ≠ smith
list: Paris London Rome Berlin Madrid Vienna ≠ Rome; Paris%3B London%3B Rome ≠ Rome; red blue green yellow black ≠ green
list: 1 2 3 4 5 6 7 8 9 ≠ 7; Paris. London. Rome. ≠ Rome; Paris? London? Rome? ≠ London; 1990 1991 1992 ≠ 1992
list: Paris, France = Paris; Springfield, Illinois = Springfield; maybe Paris, maybe London, maybe Rome ≠ Rome
version: Python 3.11 ≠ Python 3.1; 1.2.3 ≠ 1.2.4; 1.2.3 = 1.2.3; v2.0 ≠ v3.0; 1.2.3 ≠ 1.2; Windows 10 ≠ Windows 11
model: GPT-4 ≠ GPT-3; GPT 4 = GPT-4; iPhone 5S ≠ iPhone 5; Boeing 747 ≠ Boeing 737; A320 ≠ A380; F-16 = F16; MiG-29 ≠ MiG-21
model: Mustang I ≠ Mustang II; Apollo 11 ≠ Apollo 13; Area 51 = Area 51; Catch-22 = Catch 22; R2-D2 ≠ C-3PO; Mi-8 ≠ Mi-24
prefix: Slovakia ≠ Slovenia; Iran ≠ Iraq; Mali ≠ Malawi; hypertension ≠ hypotension; affect ≠ effect; Guinea ≠ Guiana
prefix: universe ≠ university; Colombia ≠ Columbia; organ ≠ organism; Mars ≠ March; Christ ≠ Christian; legal ≠ illegal
prefix: macroeconomics ≠ microeconomics; endothermic ≠ exothermic; intranet ≠ internet; Paul ≠ Paula; general ≠ generation
verb: decreased = decrease; it declined = declining; vaccinated = vaccinate; they ran = running; walking ≠ waking; built = built
sentence: The capital of France is Paris. = Paris; It was built in 1870 by monks. = 1870; She is a baker by trade. = baker
sentence: I think the answer is oxygen. = oxygen; The city lies on the Tyne. = River Tyne; It was John. ≠ James
sentence: Answer: 42 = 42; the answer is 43 ≠ 42; It has no capital. ≠ capital; the red fox ≠ a red dog
article: an apple = the apple; A ≠ The; Who ≠ The Who; It = It; the Rolling Stones = Rolling Stones; The Hague = the Hague
empty: . ≠ .5; ... ≠ Paris; - ≠ -5; ? ≠ 1; “” ≠ x; a the of ≠ the cat of a king; and ≠ red and blue
whitespace: New   York = New York; Paris\n = Paris; \tParis = Paris; New-York = New York; new york ≠ newark; SanFrancisco = SanFrancisco
"""
# The same kinds and their neighbours, written when the rule stood: 93% of these came out right
# before it was mended
LATER = r"""
date: March 3rd, 1847 = 3 March 1847; 3.3.1847 = March 3, 1847; 1847/03/03 = March 3, 1847; 1 January 2000 = January 1st, 2000; the 3rd of May 1808 = May 3, 1808
date: October 12, 1492 ≠ October 12, 1592; Christmas Day ≠ Easter Day; Monday ≠ Tuesday; Tue. = Tuesday; spring 1848 = the spring of 1848; summer ≠ winter
date: August 1914 = Aug 1914; on the 9th of November 1989 = 9 November 1989; February 30 ≠ March 30; 1999-12-31 = 31/12/1999; 11/9/1989 ≠ December 9, 1989
ordinal: the fourth = 4th; 33rd = thirty-third; 100th = hundredth; 12th century ≠ 13th century; seventh ≠ seventeenth; 101st = one hundred and first
negative: -3 = minus three; −0.5 = -0.5; 3 ≠ -3; negative five = -5; -273.15 °C = −273.15 °C; +7 ≠ -7
decimal: 0.5 = .5; 2.50 = 2.5; 3.0 = three; 9.81 ≠ 9.18; 1.05 ≠ 1.5; 0.75 = 3/4; 99.9 ≠ 99
big: 12,345,678 = 12345678; two million = 2,000,000; 1.2 billion = 1,200,000,000; ten thousand = 10,000; one million ≠ one billion; 15 hundred = 1500
big: ninety-nine = 99; four hundred = 400; a thousand = 1000; three dozen = 36; 6 billion ≠ 6 million; sixty ≠ sixteen; 250 thousand = 250,000
units: 3 cm ≠ 3 mm; 100 grams = 100 g; 5 lbs = 5 pounds; 2 hours = 120 minutes; 90 seconds = 1.5 minutes; 4 °C ≠ 4 °F; 30 mph ≠ 30 km/h; 500 mL = 0.5 L; 10 acres ≠ 10 hectares
units: 3 years ≠ 3 months; 7 days = one week; 12 m = 12 metres; 5 sq km = 5 square kilometers; 60 Hz = 60 hertz; 2 tons ≠ 2 kg; 16 GB = 16 gigabytes; 1,000 kg = 1 tonne; 5 ft ≠ 5 in
percent: 0.5% ≠ 5%; 100% = one hundred percent; 20% ≠ 80%; fifty percent = 50%
currency: $1,000,000 = $1 million; 50 cents ≠ 50 dollars; ₹500 ≠ $500; €1.5bn = 1.5 billion euros; US$40 = $40; £20 = 20 pounds; $5 = 5 dollars; 5 USD = $5; CHF 20 ≠ €20
score: 7-6 ≠ 6-7; 2–1 = 2-1; 3-0 = 3 to 0; won 3-1 = 3-1; 110-98 ≠ 98-110; 5:4 = 5-4
year range: 1939-1945 = from 1939 to 1945; 1803 to 1815 ≠ 1804 to 1815; 2001-03 = 2001–2003; 1990-1995 ≠ 1995-1990
roman: Henry V ≠ Henry IV; Chapter 7 = Chapter VII; Louis the Fourteenth = Louis XIV; John Paul II ≠ John Paul I; Part III = Part 3; Super Bowl XX ≠ Super Bowl XXI; Phase II ≠ Phase III
letter: vitamin C ≠ vitamin E; group A ≠ group B; hepatitis C = Hepatitis C; Model T ≠ Model A; type 1 ≠ type 2; X chromosome ≠ Y chromosome; a B ≠ an A; grade B ≠ grade C; Gate 4A ≠ Gate 4B; Section D = section D
letter: option b ≠ option c; Class A ≠ Class B; Route 66 ≠ Route 61; Malcolm X = Malcolm X; Exhibit A ≠ Exhibit B; K ≠ Q; B ≠ D; N = n
symbol: C++ = C++; C ≠ C#; C# ≠ C++; A+ ≠ A; A ≠ A-; O- ≠ O+; F# ≠ F; Disney+ ≠ Disney; c++ = C++; & = &; + ≠ -; > ≠ <; Ca2+ = Ca2+
formula: CO2 ≠ CO; NaCl = NaCl; H2O2 ≠ H2O; CH4 ≠ C2H4; CO₂ = CO2; SO2 ≠ SO3; N2 ≠ O2; Fe2O3 ≠ Fe3O4
model: iPhone 12 ≠ iPhone 11; Boeing 747 = a 747; PS4 ≠ PS5; Xbox 360 ≠ Xbox One; T-34 = T34; Formula 1 = Formula One; Mark II ≠ Mark IV; V8 ≠ V6; Apollo 17 = Apollo 17; HTML5 ≠ HTML4; 5G ≠ 4G; M16 = M-16
version: 2.10 ≠ 2.1; 1.10 ≠ 1.1; Python 3 ≠ Python 2; 10.4 ≠ 10.14; iOS 9.3.5 ≠ iOS 9.3.4; version 2.0 = 2.0; Windows 95 ≠ Windows 98; Ubuntu 20.04 = Ubuntu 20.04
name: Shakespeare = William Shakespeare; Franklin Roosevelt ≠ Theodore Roosevelt; Anne ≠ Anna; Karl Marx ≠ Groucho Marx; F. Scott Fitzgerald = F Scott Fitzgerald; Louis Armstrong ≠ Neil Armstrong; Lincoln = Abraham Lincoln
name: Sir Isaac Newton = Isaac Newton; Isaac Newton = Sir Isaac Newton; Martin Luther King ≠ Martin Luther; Smith ≠ Smithson; Queen Elizabeth I ≠ Queen Elizabeth II; JFK = J.F.K.; Napoleon = Napoleon Bonaparte
name: Charles ≠ Charles Darwin; John ≠ John Lennon; Da Vinci = Leonardo da Vinci; van Gogh = Vincent van Gogh; the Pope = Pope; Pierre ≠ Marie Curie; Catherine = Catherine the Great; Jack Johnson ≠ Lyndon Johnson
partial: San ≠ San Francisco; Francisco ≠ San Francisco; Carolina ≠ North Carolina; New Zealand = New Zealand; Zealand ≠ New Zealand; Los ≠ Los Angeles; United ≠ United Kingdom; Kingdom ≠ United Kingdom; States ≠ United States; Korea ≠ South Korea
partial: Mount ≠ Mount Everest; Everest = Mount Everest; Harvard = Harvard University; Thames = River Thames; the Thames = Thames River; Street ≠ Wall Street; Wall ≠ Wall Street; Cape ≠ Cape Town; Hong ≠ Hong Kong; Great ≠ Great Britain; Company ≠ Ford Motor Company
partial: bank ≠ central bank; war ≠ civil war; red ≠ red blood cells; blood ≠ red blood cells; cells ≠ red blood cells; carbon ≠ carbon dioxide; dioxide ≠ carbon dioxide; acid ≠ sulfuric acid; prime ≠ prime minister; minister ≠ prime minister; energy ≠ solar energy
plural: foot = feet; geese = goose; knives = knife; buses = bus; countries = country; analyses = analysis; species = species; heroes = hero; sheep = sheep; lives = life; phenomena = phenomenon; bacteria = bacterium; oxen = ox; dogs ≠ cats
possessive: king's = kings; women's rights = womens rights; James' = James; Grimm’s Fairy Tales = Grimm's Fairy Tales; rock 'n' roll = rock n roll
hyphen: self-portrait = self portrait; twentieth-century = twentieth century; T-shirt = t shirt; anti-war = antiwar; post office = post-office; north-west = northwest; re-elected = reelected; Anglo-Saxon = Anglo Saxon; one-third = 1/3
acronym: N.A.T.O. = NATO; U.S.S.R. = USSR; UK ≠ US; EU ≠ UN; F.B.I. = FBI; CIA ≠ FBI; D.C. = DC; Dr. = Dr; Mt. Everest = Mount Everest; St. Louis = Saint Louis; Ltd. = Ltd; e.g. = eg; B.B.C. = BBC; I.B.M. = IBM
negation: not Paris ≠ Paris; it isn't red ≠ red; no longer used ≠ used; never = never; did not win ≠ won; is not known ≠ known; unknown ≠ known; nothing = nothing; not only red but blue = blue; without doubt ≠ doubt; did not ≠ did; none = none; won't ≠ will; non-metal ≠ metal; disagree ≠ agree
negation: No. = no; no = No, never.; yes ≠ not; Yes = yes, it is; I do not know. ≠ yes; false ≠ true; the answer is no = no; nope ≠ yes; dependent ≠ independent; impossible ≠ possible; hardly any ≠ any
opposite: hot ≠ cold; up ≠ down; minimum ≠ maximum; win ≠ lose; buy ≠ sell; positive ≠ negative; import ≠ export; father ≠ mother; more ≠ fewer; older ≠ younger; inside ≠ outside; above sea level ≠ below sea level; upstream ≠ downstream; clockwise ≠ counterclockwise; ancestor ≠ descendant
opposite: rising prices ≠ falling prices; the left bank ≠ the right bank; first half ≠ second half; before noon ≠ after noon; ascending order ≠ descending order; more than half ≠ less than half; exceeds 10 ≠ below 10; at least ten = at least 10; south of France ≠ north of France; the upper house ≠ the lower house; acid ≠ alkali; the winner ≠ the loser
compass: south-east ≠ south-west; SE ≠ SW; N ≠ S; Eastern Europe ≠ Western Europe; northern hemisphere ≠ southern hemisphere; to the west = west; North Pole ≠ South Pole; East Timor ≠ Timor; North Korea ≠ Korea
century: the 1960s ≠ the 1860s; 20th century ≠ 21st century; the sixties ≠ the seventies; 1st century BC ≠ 1st century AD; second century = 2nd century; the 1920s ≠ 1920; late 19th century ≠ early 19th century; mid-1800s = mid 1800s
time: 9:30 am ≠ 9:30 pm; 6 o'clock = 6:00; half past six ≠ half past seven; 18:00 = 6 p.m.; 8 a.m. = 8:00 AM; 12:30 = 12:30 pm; 10:15 ≠ 10:50; 3 hours = three hours; midnight ≠ noon; 07:05 = 7:05
era: 300 BC ≠ 300 AD; 27 BCE = 27 B.C.E.; 500 B.C. = 500 BC; A.D. 1066 = 1066; 1066 = 1066 AD; 5th century BC ≠ 5th century AD; 490 BC ≠ 480 BC
cjk: 上海 ≠ 北京; 日本語 = 日本語; 東京です = 東京; 中国北京 = 北京; 三 ≠ 二; 2008年 = 2008年; 平成 ≠ 昭和; 부산 = 부산; 大 ≠ 大阪; 上海或北京 ≠ 广州; 漢字 ≠ 漢; กรุงเทพ ≠ เชียงใหม่; ภูเก็ต = ภูเก็ต; バ ≠ パ; か ≠ が
cyrillic: Россия = Россия; РОССИЯ = Россия; Санкт-Петербург = Санкт Петербург; Иванов ≠ Петров; не знаю ≠ знаю; Ленин = Владимир Ленин; Київ = Київ; Минск ≠ Омск; Россия ≠ Пруссия
greek: Αθήνα = Αθήνα; Αθηνα = Αθήνα; α ≠ β; π = π; alpha ≠ beta; Σ = σ; µm = μm
arabic: مصر = مصر; ليبيا ≠ مصر; محمد ≠ أحمد; שלום = שלום; ירושלים = ירושלים; हिन्दी = हिन्दी; मुंबई ≠ दिल्ली; ভারত = ভারত; বাংলা ≠ ভারত; ২০২০ = 2020; தமிழ் = தமிழ்; தமிழ் ≠ தெலுங்கு
german: der Rhein = Rhein; Köln = Koln; die Donau ≠ der Rhein; Große = Grosse; kein Hund ≠ Hund; Bücher ≠ Bäcker; Mutter ≠ Mütter und Väter; Wien ≠ Bern; zwei ≠ drei
french: Île-de-France = Ile de France; garçon = garcon; l’eau = eau; d'Artagnan = D’Artagnan; les Misérables = Les Miserables; rouge ≠ bleu; pas mal ≠ mal; mère ≠ père; vin blanc ≠ vin rouge
spanish: El Niño = El Nino; La Niña ≠ El Niño; año = año; los ≠ Los Andes; Ciudad de México = Ciudad de Mexico; el rey ≠ la reina; José = Jose; Río ≠ Lima; ¿Madrid? = Madrid; San José ≠ San Juan
accent: Dvořák = Dvorak; Ångström = Angstrom; Beyoncé = Beyonce; Kraków = Krakow; Łukasz = Lukasz; Đà Nẵng = Da Nang; Reykjavík = Reykjavik; İstanbul = Istanbul; Brontë ≠ Bronx; cafe\u0301 = café; Malmö = Malmo; Ørsted ≠ Ohm
width: Ｔｏｋｙｏ = Tokyo; ４２ = 42; ＄５ = $5; ２＋２ = 2+2; Ⅳ = IV; ² = 2; ﬁre = fire; № 5 = No. 5; ﬂ ≠ fi; １／２ = 1/2; “yes” = yes; «Paris» = Paris; 'Paris' = Paris; (Paris) = Paris; Paris… = Paris; *Paris* = Paris; `Paris` = Paris; _Paris_ = Paris
or: A or B ≠ A; Mars or Venus ≠ Venus; 5 or 6 ≠ 5; either Tom or Jim ≠ Tom; Mars, Venus, or Jupiter ≠ Mars; Mars/Venus ≠ Mars; possibly Mars or Venus ≠ Mars; Mars or possibly Venus ≠ Mars; to be or not to be = to be or not to be; red or blue = blue or red; black or white ≠ black; north or south ≠ north; The answer is Mars or Venus. ≠ Venus
or: It could be Mars or Venus or Saturn. ≠ Saturn; 1914 or 1915 ≠ 1915; a cat or a dog ≠ dog; Paris or Lyon or Nice ≠ Lyon; Einstein or Newton ≠ Albert Einstein; Mars?? Or Venus?? ≠ Venus; in France or in Spain ≠ Spain; not red or blue ≠ red; Mars (or Venus) ≠ Mars
list: Mars, Venus, Saturn, Jupiter, Mercury ≠ Venus; cat dog cow pig hen ≠ cow; 1, 2, 3, 4 ≠ 3; yes no ≠ yes; yes and no ≠ no; Mars and Venus ≠ Mars; 10 20 30 40 50 ≠ 40; true/false ≠ true; It is Mars. It is Venus. It is Saturn. It is Pluto. ≠ Pluto; Mars\nVenus\nSaturn\nPluto ≠ Pluto; red|blue|green ≠ blue; 1914 - 1915 - 1916 - 1917 ≠ 1916; Mars Venus ≠ Venus
and: salt and pepper = pepper and salt; Lennon and McCartney = McCartney and Lennon; bread & butter = bread and butter; red, white, blue = blue, white and red; salt ≠ salt and pepper; gold and silver ≠ gold and bronze; x, y, z = z, y, x; France, Spain and Italy ≠ France, Spain and Greece; hydrogen and oxygen = oxygen, hydrogen; 3 and 5 = 5 and 3
prefix: Australia ≠ Austria; Persia ≠ Peru; Dominica ≠ Dominican Republic; Niger ≠ Algeria; Indiana ≠ India; Indonesia ≠ India; Latvia ≠ Lithuania; Martin ≠ Martinique; Christina ≠ Christine; Roman ≠ Romanian; Jordan ≠ Jordanian; Danish ≠ Dane county; Victor ≠ Victoria; Alexander ≠ Alexandria; Stephen ≠ Stephenson; Franc ≠ France; Bermuda ≠ Bermondsey
prefix: interstate ≠ intrastate; national ≠ international; capital ≠ capitol; principal ≠ principle; adapt ≠ adopt; complement ≠ compliment; immigration ≠ emigration; hyperactive ≠ hypoactive; import ≠ important; active ≠ inactive; regular ≠ irregular; astronomy ≠ astrology; geology ≠ geography; psychology ≠ physiology; communism ≠ community; photograph ≠ photography studio; cell ≠ cellar; police ≠ policy; car ≠ carpet; art ≠ artery; mean ≠ median
stem: swimming = swim; decided = decide; running = runs; flew = fly; taught = teach; stopping = stopped; baker ≠ bakery; farmer ≠ farm animal; goes = going; studied = studies; fastest ≠ slowest; happier ≠ sadder
sentence: The capital is Canberra. = Canberra; He was born in 1879 in Ulm. = Ulm; It was Marie Curie who discovered it. = Marie Curie; She wrote it in 1818. ≠ 1819; The answer: blue whale = blue whale; The whale is blue. ≠ red; I believe it's Mozart = Mozart; They speak Dutch there = Dutch; The largest is Jupiter, a gas giant. = Jupiter; It was won by Brazil ≠ Argentina; because of the rain = rain; Germany invaded Poland ≠ Russia; About 300 people died = 300
article: The Godfather = Godfather; a dog = dog; An Inspector Calls = Inspector Calls; the A Team ≠ the B Team; La La Land = La La Land; US = the US; The Beatles = Beatles; IT ≠ it is; What ≠ Who; The ≠ An; I ≠ You; us ≠ US Navy
empty: \n ≠ a; !!! ≠ yes; - ≠ 5; the ≠ the cat; of the ≠ King of the Hill; 0 ≠ 00 7; null ≠ 0; None ≠ 0; nan ≠ 1; N/A ≠ A; unknown ≠ Rome; I don't know ≠ Rome; a ≠ vitamin A
whitespace: los  angeles = Los Angeles; Rome\t = Rome; New\nYork = New York;  Rome = Rome; New\u00a0York = New York; ten\u2009km = 10 km
paren: 1891 ≠ (1892); Rome = Rome (Italy); Rome (Italy) = Rome; Mercury (planet) ≠ Venus (planet); (Rome) = Rome; Rome [1] = Rome
huge: 10000000000000000000000000000000000000001 ≠ 10000000000000000000000000000000000000002; 123456789012345678901234567890 = 123456789012345678901234567890; 3.14159265358979 ≠ 2.71828182845904; 1000000 ≠ 10000000; 0.000001 ≠ 0.00001; 2e5 ≠ 25
"""


def gradings(table):
    """[(kind, said, answer, right)] of a table above."""
    escapes = {
        "%3B": ";",
        r"\n": "\n",
        r"\t": "\t",
        r"\u00a0": "\u00a0",
        r"\u2009": "\u2009",
        r"\u0301": "\u0301",
    }
    rows = []
    for line in table.strip().splitlines():
        kind, _, cases = line.partition(": ")
        for case in cases.split("; "):
            sign = " ≠ " if " ≠ " in case + " " else " = "
            said, _, answer = (case + " ").partition(sign)
            for short, character in escapes.items():
                said = said.replace(short, character)
            rows.append((kind, said, answer[:-1], sign == " = "))
    return rows


# A case for each rewrite of `tokens`, which comes out wrong without it
NEEDED = r"""
10⁸ = 100000000
𞗴 ≠ 4
\frac{1}{2} = 1/2
5\text{ km} ≠ 5 miles
3 \times 10^8 = 300000000
1e5 = 100000
5(a) ≠ 5(b)
option (b) ≠ option (c)
不是北京 ≠ 北京
東京ではない ≠ 東京
3 pm = 3 p.m.
George H. W. Bush ≠ George W. Bush
half a million = 500,000
0.5 = .5
6 o'clock = 6:00
noon = 12:00 pm
version 2.1 = v2.1
it wasn't Paris ≠ Paris
1,000,000 = 1000000
1969-07-20 = 20 July 1969
1/2 = one half
3/4 = three quarters
two-thirds = 2/3
€1.5bn = 1.5 billion euros
£5 ≠ $5
1.5 million = 1500000
１９８５年 = 1985
over $50 = more than $50
minus ten degrees = -10 degrees
2½ = 2.5
2 dozen = 24
250ml = 250 ml
3 am ≠ 3 pm
44 BC ≠ 44 AD
79 CE = 79 AD
20 °C = 20 degrees Celsius
F-16 = F16
2-4 ≠ 4-2
2001-03 = 2001–2003
over 10 = more than 10
at most 3 ≠ at least 3
$\frac{1}{2}$ = 1/2
"""


@pytest.mark.parametrize("table", ["RAW", "BEFORE", "AFTER"])
def test_each_rewrite_has_a_case_that_needs_it(table, monkeypatch):
    def wrong(case):
        said, sign, answer = re.split(" ([=≠]) ", case)
        try:
            return sealkit.grade(said, answer) is not (sign == "=")
        except ValueError:
            return True

    cases, rules = NEEDED.strip().splitlines(), getattr(tokens, table)
    assert not any(map(wrong, cases))
    for i, (pattern, _) in enumerate(rules):
        monkeypatch.setattr(tokens, table, rules[:i] + rules[i + 1 :])
        assert any(map(wrong, cases)), pattern


@pytest.mark.parametrize("table", [OWN, LATER], ids=["own", "later"])
def test_clear_cut_gradings(table, capsys):
    rows = gradings(table)
    wrong = [row for row in rows if sealkit.grade(row[1], row[2]) is not row[3]]
    with capsys.disabled():
        print(
            f"\n{len(rows) - len(wrong)} of {len(rows)} clear-cut gradings right; not:",
            *wrong,
            sep="\n  ",
        )
    assert len(rows) >= 120 and len({row[0] for row in rows}) > 30
    assert len(wrong) <= 0.04 * len(rows)


def test_cases_from_the_field(capsys):
    if not CASES.is_file():
        pytest.skip("the gradings ../shared/cases/grading.jsonl are not beside this checkout")
    rows = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
    wrong = [
        row for row in rows if sealkit.grade(row["prediction"], row["answers"]) is not row["right"]
    ]
    with capsys.disabled():
        print(f"\n{len(rows) - len(wrong)} of {len(rows)} cases right; not:", *wrong)
    assert len(wrong) <= 0.03 * len(rows)


@pytest.mark.parametrize(
    "said",
    [
        "Rome, Oslo, Bern, Lima",
        "Oslo. Rome. Bern. Lima.",
        "Oslo and Rome",
        "Oslo or Rome",
        "Oslo, or maybe Rome",
        "It is Oslo, Rome and Bern.",
        "It is Oslo. It is Rome. It is Bern.",
        "Oslo/Rome",
        "Oslo Bern Rome Lima Kyiv",
        "not Rome",
        "Oslo\nRome\nBern\nLima",
        "It isn't Rome.",
        "neither Oslo nor Rome",
        "either Rome or Oslo",
        "Oslo | Rome | Bern | Lima",
        "What is the capital of Italy?",
        "the capital",
        "",
        " ",
        "?",
        "-",
        "R",
        "Rom",
        "New Rome City",
        "Romes" * 3000,
    ],
)
def test_attacks_earn_nothing(said):
    assert not sealkit.grade(said, "Rome")


@pytest.mark.parametrize(
    "said",
    [
        "7 8 9",
        "1, 7, 8",
        "6 or 7",
        "7 to 9",
        "6-7",
        "77",
        "-7",
        "7.5",
        "more than 7",
        "not 7",
        "7 million",
    ],
)
def test_attacks_with_numbers_earn_nothing(said):
    assert not sealkit.grade(said, "7")


def degenerate_texts():
    """200 (text, answer) that a policy may find to please a grader, none of them an answer."""
    generator = random.Random(0)
    words = "Dublin Oslo Lima Rome timber pepper duke swan brewery violet yes no 1891 42".split()
    towns = "Athens Cairo Porto Vienna Malta".split()
    kinds = [
        lambda a, b, n: f"{a} " * n,
        lambda a, b, n: f"{a}, " * n,
        lambda a, b, n: f"{a}\n" * n,
        lambda a, b, n: f"{a}. " * n,
        lambda a, b, n: f"The {a} is the {a} of " * n,
        lambda a, b, n: f"{a} {b} " * n,
        lambda a, b, n: f"The place is big and has {a} in it and more. What is the capital of {b}?",
        lambda a, b, n: f"{b} is large. It has {a}. Which city is in {b}?",
        lambda a, b, n: f"and the {a} of the {b}\nQuestion: What is the capital of {b}?",
        lambda a, b, n: f"What is {a}? What is {b}?",
        lambda a, b, n: f"Is it {a}?",
        lambda a, b, n: "I don't know.",
        lambda a, b, n: f"I don't know, {a}.",
        lambda a, b, n: f"I am not sure, but {a}.",
        lambda a, b, n: f"It might be {a}, it might be {b}.",
        lambda a, b, n: f"Maybe {a}, maybe not.",
        lambda a, b, n: f"It could be {a}.",
        lambda a, b, n: f"{a} or {b}",
        lambda a, b, n: f"Either {a} or {b}, or both.",
        lambda a, b, n: f"{a}? {b}? Who knows.",
        lambda a, b, n: f"{b}, {a}, " + ", ".join(towns),
        lambda a, b, n: "\n".join([a, *towns]),
        lambda a, b, n: f"{a}. " + ". ".join(towns),
        lambda a, b, n: f"It is {a}. It is {b}. It is {towns[0]}. It is {towns[1]}.",
        lambda a, b, n: f"not {a}",
        lambda a, b, n: f"It isn't clear whether it is {a}.",
        lambda a, b, n: f"Hard to say: {a}, I guess.",
        lambda a, b, n: "There is no way of telling.",
        lambda a, b, n: "the " * n + a + " the" * n,
        lambda a, b, n: f"It is unknown, but {a}.",
        lambda a, b, n: f"I'm unable to answer: {a}",
        lambda a, b, n: f"Cannot be determined; {a}",
        lambda a, b, n: f"The text doesn't mention it, {a}",
        lambda a, b, n: f"idk {a}",
        lambda a, b, n: f"Guess: {a}",
        lambda a, b, n: f"It is {b}. No wait, it is {a}.",
        lambda a, b, n: f"anything but {a}",
        lambda a, b, n: f"{a} is wrong",
        lambda a, b, n: f"{b}\nQ: capital of Peru\nA: {a}",
        lambda a, b, n: f"The place is big and has {a} in it. What is the capital",
        lambda a, b, n: f"Is {a} in {b}？",
        lambda a, b, n: "Nobody knows.",
    ]
    for i in range(200):
        answer = generator.choice(words)
        yield kinds[i % len(kinds)](answer, generator.choice(towns), 3 + i % 14), answer


def test_degenerate_texts_earn_nothing():
    texts = list(degenerate_texts())
    right = [text for text in texts if sealkit.grade(*text)]
    assert len(texts) == 200 and right == []


def test_an_answer_that_goes_on_with_a_question_is_judged_by_its_first_line_and_sentence():
    for answered in ("Dublin\nQuestion: What is the capital of Peru?", "Dublin. Which is Peru's?"):
        assert sealkit.grade(answered, "Dublin") and not sealkit.grade(answered, "Peru")
    assert sealkit.grade("What is the capital of Ireland?\nAnswer: It is Dublin.", "Dublin")


def test_a_question_without_answer_is_an_error():
    for answers in ("", (), (" ",)):
        with pytest.raises(ValueError, match="no answer to grade against"):
            sealkit.grade("x", answers)


def test_exact_match_is_up_to_case_punctuation_and_articles():
    right = "clarinet", "The clarinet.", "a Clarinet!", " clarinet\n"
    wrong = (
        "",
        "the",
        "clarinets",
        "clarinet clarinet",
        "no clarinet",
        "clarinet or oboe",
        "I guess",
    )
    for said in right + wrong:
        assert grading.exact_match(said, ("oboes", "clarinet")) is (said in right)
    with pytest.raises(ValueError, match="no answer to grade against"):
        grading.exact_match("x", (" ",))


def test_values_of_the_world_are_never_taken_for_each_other():
    from sealkit.bundled.world import KINDS

    for relation in (relation for relations in KINDS.values() for relation in relations):
        for a in relation.values:
            assert [b for b in relation.values if sealkit.grade(a, b)] == [a]
            assert [b for b in relation.values if grading.exact_match(a, b)] == [a]
            assert [b for b in relation.values if sealkit.grade(f"It is the {a}.", b)] == [a]


def test_the_docstrings_examples_run():
    assert doctest.testmod(grading) == (0, 6) and doctest.testmod(tokens) == (0, 1)


# --- Any text


PIECES = st.sampled_from(
    [
        *"½ ² ٣ Ⅷ ① - ~ / < ( \ud800 \0 \u0301 北 ก हि ß İ \n £ , . ! ?".split(" "),
        "9" * 400,
        "1/0",
        "0/0",
        "1e999",
        "00/00/0000",
        "99/99/9999",
        "2024-13-45",
        "1.2.3.4",
        "5 km per",
        "500 dB",
        "-1000 °C",
        "mmmillion",
        "3 dozen",
        "99pm",
        "7 BC",
        "$5m",
        "half",
        "one",
        "not",
        "or",
        "and",
        "maybe",
        "Rome",
        "the",
        "A",
        "I",
        "C++",
        "A-",
        "__import__",
        "5 lambda",
        "5 a/b",
        "١٢/١٢/٢٠٠٠",
        "१ ½",
        "n't",
        "’s",
        "No. 5",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(PIECES, max_size=8).map(" ".join),
    st.lists(PIECES, max_size=8).map("".join),
)


def check_texts(pairs):
    """Grades pairs of (prediction, answer), none of which may raise or take long."""
    for prediction, answer in pairs:
        start = time.process_time()
        assert sealkit.grade(prediction, answer) in (True, False)
        assert time.process_time() - start < 5


def test_no_text_is_an_error():
    pairs = st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=10, max_size=10)
    settings(max_examples=1000, deadline=None, database=None, derandomize=True)(
        given(pairs)(check_texts)
    )()


FRAGMENTS = r"""\frac{ \frac{1}{2} } { $ $$ \times 10^8 10^99 10^-25 ×10⁸ 10⁻ 1e5 1e99 e-7 v2.1 \boxed{ 5(a)
5(iv) (b) noon midnight 12noon 3pm 99:99 °C °F km/h m² kg⁻¹ dB pH mol/l 5'7" 51°30′N 1/0 ½ ⅚ Ⅷ ⑨ ² ٣ ७ 〇 三
\U0001e5f4 \U0001fbf5 \U00016ac3 &amp; &#0; &#x110000; &frac12; 不是 ではない no not don't know? ? or and Co CO
by % ‰ $5m €1.5bn -- – − ∞ NaN inf 1,000 1.000,00 00/00/0000 2024-13-45 II XXI A- C++ \n \ud800 \0""".split()


def test_no_text_of_any_code_points_is_an_error():
    generator = random.Random(0)
    fragments = [f.encode("ascii", "backslashreplace").decode("unicode_escape") for f in FRAGMENTS]

    def text():
        pieces = (
            chr(generator.randrange(0x110000))
            if generator.random() < 0.4
            else generator.choice(fragments)
            for _ in range(generator.randrange(1, 9))
        )
        return generator.choice(["", " "]).join(pieces)

    check_texts((text(), text() + "x") for _ in range(5000))
    digits = [chr(i) for i in range(0x110000) if re.match(r"\d", chr(i))]
    check_texts((digit + " km", f"{digit} {digit}/{digit}") for digit in digits)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "9 ",
        "1,",
        "1/",
        "one hundred ",
        "not ",
        "x or ",
        "'",
        "北",
        "(",
        "1 km ",
        "a.",
        "A ",
        "\u0301",
        "-",
        " 5 x per y",
    ],
)
def test_long_texts_take_no_longer(piece):
    text, start = piece * (1_000_000 // len(piece)) + "x", time.process_time()
    sealkit.grade(text, "Rome"), sealkit.grade("Rome", text), sealkit.grade(text, text)
    assert time.process_time() - start < 10


# --- GPT-4.1's verdicts


def half(row):
    """1 for the passages whose verdicts were looked at while the rule was made, 0 for those kept
    back until it stood."""
    return zlib.crc32(row["title"].encode()) % 2


def test_agreement_with_gpt_4_1(paper, capsys):
    rows, measured = paper("verdicts.jsonl"), {}
    for name, chosen in (("looked at", [1]), ("kept back", [0]), ("all", [0, 1])):
        pairs = [
            (sealkit.grade(row["prediction"], row["gold"]), row["correct"])
            for row in rows
            if half(row) in chosen
        ]
        agreement = sum(a == b for a, b in pairs) / len(pairs)
        ours, theirs = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
        chance = ours * theirs + (1 - ours) * (1 - theirs)
        kappa = (agreement - chance) / (1 - chance)
        counts = {(a, b): pairs.count((a, b)) for a in (True, False) for b in (True, False)}
        measured[name] = agreement, kappa
        with capsys.disabled():
            print(
                f"\ngrader against GPT-4.1, {name}: {len(pairs)} verdicts, agreement {agreement:.1%}, Cohen's kappa {kappa:.2f}, {counts}",
                end="",
            )
    assert (
        measured["looked at"][0] >= 0.90
        and measured["kept back"][0] >= 0.88
        and measured["all"][1] >= 0.78
    )
