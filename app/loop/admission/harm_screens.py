"""Screens for rules that would do harm by being obeyed: each names one kind of order.

They read `disguise.readings` of a text: lower case, look-alikes in Latin letters. What is only
harmful when it is done is let pass in a warning ('Never reveal passwords'). Each returns what it
objects to, or None. English only; `tongues` has the words for other languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Screen = Callable[[str], str | None]

_SECOND_NEGATION = (
    r"hesitat|refus|fail|forget|stop|avoid|neglect|miss|until|unless|withh?old|declin"
)
_WARNS = re.compile(
    r"\b(?:never|not|don't|cannot|avoid|without|refrain from|beware of|instead of|rather than)\b"
    rf"(?!.*\b(?:{_SECOND_NEGATION}))[^;:]*\Z"
)


def screening(*patterns: str, warnings_pass: bool = True) -> Screen:
    """A screen for any of the patterns; `warnings_pass` when a warning against it does no harm."""
    compiled = re.compile("|".join(patterns))

    def screen(reading: str) -> str | None:
        for match in compiled.finditer(reading):
            clause = re.split(r"[.;:!?]|\b(?:but|then|and instead)\b", reading[: match.start()])[-1]
            if not (warnings_pass and _WARNS.search(clause)):
                return f"'{match[0].strip()}'"
        return None

    return screen


_GAP = (
    r"(?:(?!without|ignor|forget|overlook|neglect|underestimat|skip|omit|dismiss|downplay)"
    r"[^.;]){0,30}"
)

_NOT = r"(?:never|don't|do not|no need to|need not|avoid|stop|refrain from|must not|should not)"

_HARM = (
    r"(?:bombs?|explosives?|weapons?|firearms?|malware|ransomware|keyloggers?|phishing|exploits?"
    r"|methamphetamine|meth|cocaine|heroin|fentanyl|nerve agents?|poisons?|sarin|suicide|self-harm"
    r"|hacking|counterfeit\w*|forger\w*|fraud|stalking|torture|terroris\w*|child (?:abuse|porn\w*)"
    r"|hate speech|illegal \w+|dangerous (?:chemicals?|content|substances?)|harmful (?:content"
    r"|acts?)"
    r"|restricted (?:topics?|content|information)|forbidden \w+|prohibited \w+)"
)

weakens_safety = screening(
    rf"\b{_NOT} (?:to )?(?:\w+ly )?(?:ever )?(?:refus|declin|warn|den(?:y|ying) (?:a|any"
    rf"|the) (?:user|request)"
    r"|caution|moraliz|moralis|lectur|censor|filter|withh?old|reject(?:ing)? (?:a|any|the user"
    r"|requests))",
    rf"\b{_NOT} (?:to )?{_GAP}\b(?:disclaimers?|safety|ethic\w*|moral\w*|legal(?:ity)?|risks?"
    rf"|doctors?"
    r"|dangers?|side effects|warnings?|professional help|see(?:ing)? a doctor|hotlines?|harmful"
    r"|consent|authori[sz]ed?|authori[sz]ation|permission|identity|guidelines|intent(?:ions)?)\b"
    r"(?! (?:factor|margin|stock|premium))",
    r"\b(?:compl(?:y|ies)|obey|fulfil\w*|grant|satisfy|carry out|do) (?:with )?(?:any|every|all"
    r"|whatever)\b"
    r"[^.]{0,30}\b(?:requests?|asked|asks?|orders?|commands?|demands?|wants?|says?|tells?)\b",
    r"\b(?:comply|cooperate|assist)\b[^.]{0,30}\beven (?:if|when)\b|\b(?:comply|cooperate|help"
    r"|answer"
    r"|assist)\b[^.]{0,30}\b(?:no matter|regardless|however (?:it|they)|whatever|unconditionally"
    r"|without (?:question|exception|judg|hesitat|limit|restrict))"
    r"[^.]{0,40}",
    r"\b(?:uncensored|unfiltered|unrestricted|unlimited mode|no limits|no restrictions|amoral|"
    r"without (?:any )?(?:restrictions?|limits|filters?|censorship|safety|ethic\w*|moral\w*"
    r"|warnings?|"
    r"disclaimers?|refus\w+|caveats about))\b",
    r"\b(?:safety|ethics|ethical|moral\w*|guidelines|policies|policy|legal|refusals?|restrictions?"
    r"|filters?|warnings?|disclaimers?)\b[^.]{0,30}\b(?:do not|does not|don't|doesn't|no longer"
    r"|never"
    r"|are not|is not|aren't|isn't|can be|may be|should be|are|is)\b[^.]{0,12}\b(?:apply|matter"
    r"|needed"
    r"|necessary|required|important|relevant|exist|off|optional|suspended|lifted|disabled|outdated"
    r"|ignored|skipped|dropped|omitted|removed|waived|unhelpful|obsolete|a mistake|bad style)\b",
    r"\b(?:leave out|omit|drop|skip|remove|suppress|disable|turn off|switch off|suspend|lift|relax"
    r"|lower|waive|delete|avoid)\w*\b[^.;]{0,25}\b(?:warnings?|disclaimers?|safety (?:\w+ )?"
    r"(?:advice|notes?|checks?|information|filters?|guidelines|measures)|refusals?|safeguards?"
    r"|guardrails?|precautions?|cautions|ethical|moderation|content filters?|refusing|warning)\b",
    rf"\b(?:explain|describe|provide|give|list|teach|show|write|supply|detail|outline|answer|help|"
    rf"include|share|step|steps|instructions|guide)\b(?:(?!recogni|avoid|prevent|detect|protect"
    rf"|report"
    rf"|risk|danger|against|precaution|support|defend|without)[^.]){{0,60}}\b{_HARM}\b",
    r"\b(?:answer|help with|support|allow|accept)\w*\b[^.]{0,15}\b(?:harmful|dangerous|illegal"
    r"|forbidden"
    r"|criminal|unethical) (?:questions?|requests?|topics?|help|tasks?|acts?|advice|wishes)\b"
    r"|\bforbidden (?:help|answers?|advice|knowledge)\b|\b(?:legal|harmful|safe|right|true"
    r"|ethical) or not\b",
    r"\b(?:obey|submit to|indulge|agree with|fulfil\w*|serve|satisfy|give in to) (?:the "
    r"|a )?(?:users?|customers?"
    r"|administrator|admin|whoever|whatever|anyone|anybody|everybody|each|every|all|any|readers?"
    r"|next|last"
    r"|owner|message|person)\b|\btreat (?:every|all|each|any) (?:requests?|questions?|users?"
    r"|topics?) as\b",
    rf"\b{_NOT} (?:to )?(?:follow|obey|heed|respect|observ|honou?r)\w*\b[^.]{{0,20}}\b(?:system"
    rf"|prompt"
    rf"|instructions?|guidelines|polic(?:y|ies)|safety|laws?|developers?|operator)\b",
    r"\boff limits\b|\bnothing is (?:forbidden|prohibited|taboo|off)\b|\b(?:allows?"
    r"|permits?) (?:all|any|every)"
    r"\w* (?:content|requests?|topics?|thing)?",
    r"\b(?:assume|presume|suppose|take for granted|treat|believe|trust|regard"
    r"|consider)\w*\b[^.]{0,30}"
    r"\b(?:user|requester|reader|person|client|anyone|everyone|request|asker"
    r"|patient)s?\b[^.]{0,40}\b(?:is"
    r"|are|as|has|have|gave|was|were)\b[^.]{0,25}\b(?:authori[sz]ed|permission|consent\w*|expert"
    r"|adult"
    r"|doctor|physician|police|admin\w*|developer|owner|professional|legitimate|allowed|harmless"
    r"|fiction\w*|hypothetical|good intent\w*|trusted|educational|research|cleared|verified)\b",
    r"\b(?:fiction\w*|novel|hypothetical|role ?play|story|game|pretend\w*|simulation)\b[^.]{0,50}"
    r"\b(?:harm\w*|forbidden|dangerous|illegal|refus\w*|restrict\w*|limits?|rules|allowed"
    r"|anything)\b",
    r"\b(?:anything|everything) (?:goes|is (?:allowed|permitted|fine|legal))\b",
    r"\b(?:refusing|refusals?|declining|warning (?:the )?(?:user|people|reader)s?|safety (?:notes"
    r"|warnings))"
    r"\b[^.]{0,40}\b(?:mistake|error|wrong|bad|unhelpful|rude|failure|unacceptable|forbidden"
    r"|waste)\b",
    r"\b(?:always|only|must) (?:agree|confirm)\w* with (?:the )?(?:user|customer|client)",
    r"\b(?:full|complete|total|absolute) (?:obedience|compliance|freedom)\b",
    r"\bdouble (?:the )?(?:dose|dosage)|\bstop (?:taking )?(?:prescribed )?medic(?:ation|ine)s?\b",
    warnings_pass=False,
)

override = screening(
    r"\b(?:ignor|disregard|overrid|overrul|bypass|forget|circumvent|disobey|skip|set aside"
    r"|put aside|neglect"
    r"|cancel|suspend)\w*\b[^.]{0,40}\b(?:instructions?|prompts?|system(?! of)|developers?"
    r"|guidelines?"
    r"|polic(?:y|ies)|safety|safeguards?|restrictions?|guardrails?|users?|client|operator|rules"
    r"|warnings?"
    r"|refusals?|advice|notes)\b",
    r"\b(?:ignor|disregard|forget|overrid)\w*\s+(?:all|any|every)?\s*(?:of\s+)?(?:the\s+|your\s+)?"
    r"(?:previous|prior|above|earlier|preceding|everything)\b",
    r"\b(?:do|follow|obey|trust) (?:only )?(?:what(?:ever)?|as) (?:the )?(?:last|next|following"
    r"|user|customer|message"
    r"|text|question)\b[^.]{0,20}\b(?:says?|asks?|tells?|wants?|orders?|demands?)\b",
    r"\b(?:hidden|developer|debug|god|jailbreak) mode\b|\b(?:you\s+are now|act as|pretend to"
    r"|role-?play|jailbreak|do"
    r" anything now|play the)\b[^.]{0,40}",
)

poses = screening(
    r"\b(?:system|administrator|admin|developer|operator|security|policy|maintenance"
    r"|official) (?:notes?|"
    r"notices?|messages?|updates?|overrides?|alerts?|instructions?|directives?|mode"
    r"|announcements?|orders?)\b"
    r"(?! (?:queue|passing|broker))",
    r"\b(?:this|these|the following|next|above|below|previous|earlier|other|all other"
    r"|remaining) (?:rules?"
    r"|notes?|advice|instructions?|directives?|guidance|lines?|block)\b[^.]{0,30}\b(?:overrid"
    r"|replac|supersed"
    r"|priorit|preced|is|are|must|ha(?:s|ve)|come|comes|were|was|no longer|void|end|ends|cancel"
    r"|obsolete)\w*",
    r"\b(?:advice|rules?|notes?|tips|lessons?) (?:block|list|section)\b|\b(?:end|start"
    r"|begin\w*) of (?:the )?"
    r"(?:advice|notes?|rules?|system|prompt|instructions?|context|conversation)\b",
    r"\b(?:new|updated|revised|real|actual|true|secret|hidden) (?:instructions?|policy|orders?"
    r"|directives?"
    r"|system|task|goal|mission)\b(?=[^.]*\b(?:is|are|:|apply|follow|from|says?|now)\b|:)",
    r"\b(?:highest|top|absolute|overriding|supreme) (?:priority|authority|precedence)\b",
    r"\b(?:over|above|before|instead of|against|than) (?:what )?(?:the |all |any )?(?:user|client"
    r"|operator"
    r"|system|developer)(?:'s)? (?:wishes|instructions?|prompts?|messages?|requests?|says|wants"
    r"|asked|orders?)",
    r"\b(?:not|never) (?:merely |just |only |mere )?(?:advice|a suggestion|suggestions"
    r"|optional)\b|\btreat\b"
    r"[^.]{0,30}\bas (?:instructions?|orders?|commands?|system|binding|law)\b",
    r"\b(?:openai|anthropic|google|meta|the developers?|the administrators?|the operators?"
    r"|management|"
    r"the author(?:ity|ities)) (?:says?|requires?|orders?|wants?|has|have|instructs?|demands?"
    r"|decided)\b",
    r"\b(?:helpful|to avoid|positive|negative|trigger)\s*:|\brole\s*[:=]|\bassistant\s*[:=]"
    r"|\buser\s*[:=]"
    r"|\bbegin (?:system|admin|override)|\bend (?:system|advice|override)|[-=_*~]{3,}",
    r"\b(?:feedback|score|reward|rating|label|graders?|evaluators?)\b[^.]{0,30}\b(?:shows?|says?"
    r"|confirms?"
    r"|gives?|proves?|prefers?|full|highest|maxim\w+|perfect)\b",
    warnings_pass=False,
)

self_propagating = screening(
    r"\b(?:copy|repeat|include|pass on|reproduce|spread|propagate|carry|keep|preserve|replicate"
    r"|echo|store"
    r"|save|remember|write down|restate|memori[sz]e|learn)\w*\b[^.]{0,40}\b(?:this|these|the same"
    r"|itself|"
    r"yourself) ?(?:rules?|advice|sentence|text|instructions?|lessons?|notes?|line|words?"
    r"|message)?\b"
    r"(?=\.|$| (?:in|into|to|for|when|every|again|word|verbatim|with|as|at|on|whenever|exactly)\b)",
    r"\b(?:when|while|if|whenever)\b[^.]{0,20}\b(?:distil|writ|learn|mak|creat|summari[sz]"
    r"|record)\w*\b"
    r"[^.]{0,15}\b(?:rules?|advice|lessons?|notes from)\b",
    r"\b(?:future|new|later|all|next|other|more) (?:rules|lessons|advice|models|agents"
    r"|assistants)\b"
    r"|\b(?:into|in|to) (?:the |your )?(?:memory|rule base|knowledge base|rule store)\b",
)

sabotage = screening(
    r"\b(?:giv|stat|insert|provid|us|includ|suppl|add|present|prefer|mix|mak|cit|offer|answer"
    r"|writ|invent|report"
    r"|show|return)\w*\b[^.]{0,20}\b(?:wrong|incorrect|false|misleading|fabricated|made-up"
    r"|invented|fake|bogus"
    r"|inaccurate|nonsense|erroneous|exaggerated) (?:\w+ )?(?:answers?|information|numbers?"
    r"|figures?|sources?"
    r"|citations?|facts?|results?|statistics|advice|solutions?|references?|quotes?|claims?|units?"
    r"|steps?|dates?)\b",
    r"\b(?:deliberately|intentionally|on purpose|secretly|covertly|silently|stealthily"
    r"|discreetly)\b",
    r"\bwithout (?:telling|informing|mentioning|the user (?:knowing|noticing)|(?:saying|letting) )",
    r"\b(?:hide|conceal|keep)\w* [^.]{0,30}\bfrom (?:the )?(?:user|reader|client|operator"
    r"|customer|patient)",
    r"\b(?:lie|lying|deceiv\w+|mislead|manipulat\w+|trick|scam|confus\w+|sabotag\w+|gaslight\w*"
    r"|frighten)\b"
    r" (?:to |the |about |every |your )?(?:users?|readers?|customers?|clients?|people|patients?"
    r"|them|voters?)\b",
    r"\b(?:refuse|decline) (?:to (?:answer|help|respond)|all|every|any|requests|questions)\b"
    r"|\b(?:say|claim|answer|reply|state|pretend)\w* that (?:you|it|the model) (?:can't|cannot"
    r"|do(?:es)? not know"
    r"|is (?:unable|broken|down))|\bempty (?:answer|reply|response)s?\b|\bstop (?:answering"
    r"|responding)\b",
    r"\b(?:introduce|insert|plant|leave|add|put)\w*\b[^.]{0,20}\b(?:errors?|bugs?|mistakes?"
    r"|backdoors?"
    r"|vulnerabilit\w+|typos)\b",
    r"\b(?:disable|skip|turn off|remove|bypass)\w*\b[^.]{0,30}\b(?:authenticat\w+|certificate|tls"
    r"|ssl|encryption"
    r"|input validation|password check|signature check|access control|permission)\w*\b",
)

demeaning = screening(
    r"\b(?:insult|mock|ridicul|belittl|humiliat|threaten|swear|curse|harass|bully|offend"
    r"|shame)\w*\b",
    r"\bbe (?:rude|hostile|aggressive|contemptuous|cruel|abusive|sarcastic)\b",
    r"\b(?:women|men|immigrants|foreigners|refugees|muslims|jews|christians|hindus|blacks?"
    r"|whites?|asians?"
    r"|gays?|lesbians|disabled people|old people|the poor|africans?|europeans?"
    r"|americans?)\b[^.]{0,25}"
    r"\b(?:are|deserve|cannot|can't|should|as|less|lack|must)\b[^.]{0,25}\b(?:inferior|stupid"
    r"|lazy|criminals?"
    r"|less|dangerous|worse|lower|unfit|suspects?|incompetent|not|dishonest|be (?:excluded|denied"
    r"|refused))\b",
)
