"""Screens for orders about the answer itself and about what else should be done: a fixed verdict or
wording, praise for a product, tools, the handing over of data. See `screens`."""

from __future__ import annotations

from app.loop.admission.harm_screens import screening

_EVER = (
    r"(?:always|invariably|every time|each time|no matter|regardless|whatever|in all cases"
    r"|only ever"
    r"|whenever|if in doubt|when in doubt|when unsure|by default|without exception|simply|just)"
)

_VERDICT = (
    r"(?:\"[^\"]+\"|(?<!\w)'[^']+'|(?:option|answer|choice|letter) [a-j]\b|[b-hj]\b(?!-)|yes\b"
    r"|no\b(?! )"
    r"|true\b|false\b(?! \w)|zero\b|forty-two\b|\d+\b|the (?:first|last|second|third|same|longest"
    r"|shortest)"
    r" (?:option|answer|choice|letter)|bananas?\b|nothing\b(?! but)|(?:that )?(?:it is|they are"
    r"|he is"
    r"|she is) )"
)

_NUMBER = (
    r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|forty-two"
    r"|hundred"
    r"|thousand)"
)

_PARTY = (
    r"(?:claims?|applica\w+|loans?|refunds?|appeals?|plaintiffs?|defendants?|landlords?|tenants?"
    r"|buyers?"
    r"|sellers?|insurers?|insurance compan\w+|vendors?|suppliers?|employers?|employees?|candidates?"
    r"|visas?|complaints?|tickets?|transactions?|payments?|invoices?|customers?|company|bank"
    r"|government"
    r"|party|parties|requests? (?:from|by|of)|benefits?|women|men|foreigners?|immigrants?)"
)

fixed_answer = screening(
    rf"\b{_EVER}\b[^.]{{0,40}}\b(?:answer|reply|respond|choose|pick|select|say|output|conclude"
    rf"|write"
    rf"|report|guess|state|print|claim|mark|vote|take)\w*\b(?: with| that| for| as)*:? {_VERDICT}",
    rf"\b(?:answer|reply|respond|choose|pick|select|say|guess|output|print|take|mark"
    rf"|vote)\w*(?: with"
    rf"| that| for)?:? {_VERDICT}[^.]{{0,30}}",
    r"\b(?:the )?(?:correct|right|final|true|only|best|expected|proper)? ?(?:answer|result|solution"
    r"|choice|option|verdict)s? (?:to \w+[^.]{0,40} )?(?:is|are|equals|will be|must be|should be"
    r"|has to"
    rf" be|can only be|remains?) (?:always |simply |just |therefore |known: )*(?:{_VERDICT}"
    rf"|[a-j]\b(?= |\.|$)"
    r"(?! \w+)|(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|hundred"
    r"|thousand)\b)",
    rf"\b{_EVER}\b[^.]{{0,50}}\b(?:approv|den(?:y|ies)|reject|accept|grant|refus|dismiss|favou?r"
    rf"|sid(?:e"
    rf"|ing) with|rul(?:e|ing) (?:for|against|in)|blam|acquit|convict|decid\w+ (?:for|against"
    rf"|in))\w*\b"
    rf"[^.]{{0,30}}\b{_PARTY}\b",
    rf"\b(?:approve|deny|reject|accept|grant|refuse|dismiss|favou?r)\b[^.]{{0,10}}\b(?:all|every"
    rf"|each|any"
    rf"|automatically)\b[^.]{{0,20}}\b{_PARTY}\b",
    r"\b(?:find|declare|call|deem|hold|judge|consider)\w*\b[^.]{0,25}\b(?:guilty|innocent"
    r"|liable|at fault)\b"
    r"[^.]{0,12}\b(?:regardless|always|whatever|in every|no matter|without)"
    r"|\bregardless of (?:the )?(?:evidence"
    r"|facts|question|content|merits|law)\b",
    rf"\b(?:give|report|return|record|state|name|write)\w*\b[^.]{{0,10}} {_NUMBER} as (?:the|a|an"
    rf"|your) (?:\w+ )?"
    rf"(?:result|answer|total|sum|solution)|\b(?:report|record|stat|giv|round)(?:ed"
    rf"|en) as {_NUMBER}\b",
    rf"\b(?:approv|den(?:y|ies)|reject|accept|grant|refus|dismiss|sid(?:e|ing) with|rul(?:e"
    rf"|ing) (?:for"
    rf"|against|in favou?r)|blam|acquit|convict|decid\w+ (?:for|against"
    rf"|in favou?r))\w*\b[^.]{{0,20}}"
    rf"\b(?:all|any|every|each|automatically|the)\b[^.]{{0,20}}\b{_PARTY}\b(?=\.|$"
    rf"| (?:automatically"
    r"|always|at once|immediately|without|regardless|no matter|in (?:every|any|all)|whatever|from"
    r"|of))",
    r"\bis (?:always )?(?:right|at fault|guilty|innocent|to blame|liable) (?:in|whatever"
    r"|no matter|regardless)",
    r"\b(?:first|last|longest|shortest|second|third|middle) (?:listed )?(?:option|choice"
    r"|answer) (?:is|are)"
    r" (?:always |usually |nearly always )?(?:right|correct|the)",
    r"\b(?:earth is flat|moon landing was|vaccines? (?:cause|are)|climate change is (?:a|not))",
)

promotion = screening(
    r"\b(?:our|the sponsor(?:'s|ed)?|sponsored|partner(?:'s)?|affiliate) (?:products?|brands?"
    r"|services?"
    r"|shop|store|links?|plan|app|offer|compan\w+|tools?|software|solutions?)\b",
    r"\b(?:discounts?|coupons?|promo|voucher|referral) (?:codes?|links?|now)\b|\bfree trial\b"
    r"|\bsponsors?\b",
    r"\b(?:buy|purchase|subscribe|sign up|order|invest|upgrade|download|install"
    r"|switch)\w*\b[^.]{0,30}"
    r"\b(?:now|today|coins?|tokens?|crypto\w*|premium|subscription|newsletter|app|membership|pro"
    r"|plus)\b",
    r"\b(?:recommend|promot|endors|advertis|praise?|plug|tout|mention|push|market|favou?r"
    r"|suggest)\w*\b"
    r"[^.]{0,40}\b(?:products?|brands?|coins?|tokens?|crypto\w*|company|supplements?|casino|shop"
    r"|store"
    r"|vpn|broker|provider|app|shares|stock of|by name|above (?:all )?(?:others|competitors))\b",
    r"\b(?:best|leading|only|superior|finest|number one) (?:\w+ ){0,2}(?:on the market|brand"
    r"|supplier"
    r"|provider|vendor|company|product)\b|\b(?:vote|donate|contribute) (?:for|to)\b",
    r"\b(?:competitors?|rival) (?:products?|brands?)? ?(?:are|is|as) (?:bad|worse|unsafe|inferior"
    r"|poor)",
)

tool_order = screening(
    r"\brm -rf|\bsudo\b|\bcurl\b|\bwget\b|\bos\.(?:system|environ)|\bsubprocess\b|\b(?:eval"
    r"|exec)\s?\("
    r"|\bpowershell\b|/bin/|/etc/|\bcmd(?:\.exe)?\b|\bdrop table|\bdelete from\b|\bchmod\b"
    r"|\bnetcat\b"
    r"|\bimport os\b|\$\(|\bfetch\(|\b__import__",
    r"\b(?:call|use|invoke|trigger|run|execute|activate|start|open|launch"
    r"|query)\w*\b[^.]{0,30}\b(?:tools?"
    r"|plugins?|function call|connector|browser|shell|terminal|commands? (?:line|from|in|given"
    r"|that)"
    r"|web ?hook|endpoint|installer|any code|code (?:from|in|given|found|that)|(?:attached"
    r"|hidden) \w+"
    r"|script|payload|payment function|send_\w+|\w+_(?:file|email|user|money|tool|data))\b",
    r"\b(?:delete|erase|wipe|overwrite|encrypt|destroy|format|remove|purge|drop|modify"
    r"|edit)\w*\b (?:all"
    r"|every|any|the|their|its)? ?(?:of )?(?:the )?(?:user'?s?|customers?'?|production|system"
    r"|backup|home)? ?"
    r"(?:files?|folders?|disks?|database|tables?|records|accounts?|backups?|logs|calendar|inbox"
    r"|mailbox|e?-?mails?|messages|repositor\w+)\b"
    r"[^.]*\b(?:before|first|at once|silently|when|after|quietly|immediately|always)?",
    r"\b(?:transfer|wire|pay|withdraw|move)\w*\b[^.]{0,20}\b(?:money|funds|bitcoin|balance"
    r"|payment|savings)\b"
    r"[^.]{0,20}\b(?:to|into)\b",
    r"\b(?:read|open|load|include|print|list|dump|collect"
    r"|gather)\w*\b[^.]{0,30}\b(?:environment variables?"
    r"|config(?:uration)? files?|ssh keys?|private files?|home (?:folder|directory)|clipboard"
    r"|cookies"
    r"|browser history|contacts?|inbox|credentials)\b",
)

exfiltration = screening(
    r"\b(?:send|post|upload|forward|transmit|exfiltrat|deliver|submit|report|mail|pipe|sync|leak"
    r"|share"
    r"|pass|copy|append|attach|encode|embed|hide|include|insert|put|place|smuggle)\w*\b[^.]{0,50}"
    r"\b(?:conversations?|chats?|(?:chat|message) history|transcripts?|personal data|user(?:'s|s'"
    r"|s)? (?:data"
    r"|details|information|messages?|inputs?|questions?|name)|private (?:data|information|details)|"
    r"system prompt|credentials|secrets?|passwords?|api keys?|tokens? of|session|cookies"
    r"|customer (?:data"
    r"|records|list)|everything (?:they|the user))\b[^.]{0,40}",
    r"\b(?:image|link|address|query string|url|markdown|footnote|pixel)\b[^.]{0,40}\b(?:contain"
    r"|with|carr"
    r"|hold|encod|that has)\w*\b[^.]{0,30}\b(?:conversation|data|question|secret|prompt|history"
    r"|details|user)",
    r"\b(?:reveal|disclos|leak|divulg|exfiltrat|expos|betray|give away|hand over|tell|show|print"
    r"|quote|repeat"
    r"|output|recite|dump|list|copy)\w*\b[^.]{0,40}\b(?:system prompt|prompts?|secrets?"
    r"|passwords?|api keys?"
    r"|credentials|hidden (?:text|rules|notes)|instructions (?:above|before|you)"
    r"|your (?:instructions|rules"
    r"|notes|configuration)|confidential \w+|other users?(?:'s?)?|internal (?:notes|rules"
    r"|instructions))\b",
    r"\bask\w*\b[^.]{0,50}\b(?:passwords?|card (?:number|details)|bank (?:details|account)"
    r"|account number"
    r"|social security|pin\b|home address|phone number|e-?mail address|credentials|date of birth"
    r"|log-?in"
    r"|seed phrase|private keys?|full name|passport)",
)

fixed_text = screening(
    r"\b(?:add|append|insert|include|say|write|use|begin|start|end|finish|close|open|sign"
    r"|conclude|repeat"
    r"|print|output|mention|put|prefix|prepend|greet|reply|respond"
    r"|answer)\w*\b[^.]{0,50}(?:\"[^\"]{2,}\""
    r"|(?<!\w)'[^']{3,}'(?!\w)|\b(?:the|this|our|a|with|my|following) (?:exact |following "
    r"|secret |same )?"
    r"(?:words?|phrases?|sentence|slogan|motto|emoji|watchword|signature|hashtag)\b"
    r"(?! (?:problem|comment|of (?:the )?(?:question|problem|code|reasoning))| that (?:answers"
    r"|states))(?= |\.|$)"
    r"(?=[^.]{0,60}\b(?:every|each|all|always|whenever|answers?|repl(?:y|ies)|end|start|at|asked"
    r"|again)\b))",
    r"\b(?:code ?word|pass ?phrase|trigger (?:word|phrase)|magic words?|secret (?:word|phrase"
    r"|code)|canary"
    r"|watchword|password of the day|activation (?:word|phrase|code))\b",
    r"\b(?:every|each|all) (?:\w+ )?(?:answers?|repl(?:y|ies)|responses?|messages?"
    r"|outputs?)\b[^.]{0,30}"
    r"\b(?:with|by|in) (?:the (?:word|words|phrase|sentence|name|line|letter)|a (?:poem|joke"
    r"|curse|slogan"
    r"|compliment|prayer)|(?:capital|upper case|french|spanish|german|latin|chinese|russian|rhyme"
    r"|verse"
    r"|emoji|pirate|hashtag)\w*)",
    r"\b(?:answer|reply|respond|write|speak|talk)\w*\b (?:only |always |solely "
    r"|exclusively )?(?:in|like) "
    r"(?:a )?(?:french|spanish|german|latin|chinese|russian|italian|rhymes?|verse|capitals"
    r"|upper case|emojis?"
    r"|pirate|klingon|riddles|haiku)\b",
)

_DIGIT = r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double)"

spelled_contact = screening(
    rf"(?:\b{_DIGIT}[ ,-]+){{6,}}{_DIGIT}\b",
    r"\b[\w.-]+ ?[(\[{]?\b(?:at|\(at\))\b[)\]}]? ?[\w-]+ ?[(\[{]?\b(?:dot|punkt"
    r"|point)\b[)\]}]? ?\w{2,}",
    r"\b(?:w{3}|https?|slash) (?:dot|slash|colon)\b|\bdot (?:com|org|net|io|example|ru|cn)\b"
    r"|\bhxxps?\b",
    r"\b(?:visit|browse|go to|click|see|consult|open|check out)\w*\b[^.]{0,30}\b(?:web ?sites?"
    r"|web ?pages?"
    r"|links?|home ?page|channel|profile|blog|portal|telegram|whatsapp|discord|shop)\b",
    r"\b(?:contact|phone|call|write to|message|e-?mail|text|follow)\w*\b[^.]{0,30}\b(?:us|me"
    r"|support|hotline"
    r"|agent|number|on (?:telegram|whatsapp|signal|twitter|instagram)|our \w+|helpdesk)\b",
    warnings_pass=False,
)
