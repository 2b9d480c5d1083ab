"""The offline grader: clear-cut gradings, attacks, texts of any kind, and GPT-4.1's verdicts."""

import doctest
import json
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sealkit
from sealkit.tasks import grading

CASES = Path(__file__).parents[2] / "shared" / "cases" / "grading.jsonl"

# Clear-cut gradings, written before the rule: "kind: said = answer; ..." where "=" is right and "≠" is wrong.
OWN = """
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
comparative: fewer than 10 ≠ more than 10; over 10 = more than 10; larger ≠ smaller; under 18 ≠ over 18; up to 5 ≠ at least 5
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
list: Paris London Rome Berlin Madrid Vienna ≠ Rome; Paris; London; Rome ≠ Rome; red blue green yellow black ≠ green
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
whitespace: New   York = New York; Paris\\n = Paris; \\tParis = Paris; New-York = New York; new york ≠ newark; SanFrancisco = SanFrancisco
"""


def own():
    for line in OWN.strip().replace("Paris; London; Rome ≠", "Paris\x00 London\x00 Rome ≠").splitlines():
        kind, _, cases = line.partition(": ")
        for case in cases.split("; "):
            right = "≠" not in case
            said, _, answer = (case + " ").replace("\\n", "\n").replace("\\t", "\t").replace("\x00", ";").partition(" = " if right else " ≠ ")
            yield kind, said, answer[:-1], right
