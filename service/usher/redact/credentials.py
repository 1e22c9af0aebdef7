"""The names of credentials: of passwords, keys, tokens, codes, and links that log their reader in."""

from __future__ import annotations

import re
from typing import Literal

Where = Literal["document", "auth0", "template", "setting", "text"]
"""Where the name stands: see `names_credential`."""

_SECRETS = r"""
    .*(passwords?|passwds?|pwd|passphrases?|passcodes?|secrets?|tokens?|jwts?|otps?|hash|salt)
    | .*(api|private|secret|signing)keys?
    | .*password([0-9]|again|confirm|confirmation|encrypted|new|plain|repeat|text|value)
    | secretdata | credentialdata | pin
    | (proxy)?authorization | .*(cookie|assertion|samlresponse|codeverifier)s?
    | (activation|auth|authorization|backup|confirmation|email|emailverification|invitation|invite|login|mfa|onetime|oob|otp
        |phoneverification|recovery|reset|sms|twofactor|verification|verify)?codes?
"""
_LINKS = r"(activation|confirmation|invitation|invite|magic|recovery|reset|verification|verify)(url|uri|link)s?"
_OF_AUTH0 = r".*(ticket|authorization|linkwith|devicecode|usercode|key)s?"
_WIDE = r".*(password|passwd|passphrase|passcode).*"
_WIDER = r".*(secret|token|credential).* | .*(key|auth|pin)"


def _rule(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.VERBOSE | re.DOTALL)


_RULES: dict[Where, re.Pattern[str]] = {
    "document": _rule(_SECRETS, _LINKS),
    "auth0": _rule(_SECRETS, _LINKS, _OF_AUTH0),
    "template": _rule(_SECRETS, _WIDE),
    "setting": _rule(_SECRETS, _WIDE, _WIDER),
    "text": _rule(_SECRETS, _LINKS, _WIDE, _WIDER),
}
_NOT_OF_NAMES = re.compile(r"[\W_]")


def names_credential(name: object, where: Where = "document") -> bool:
    """Whether *name* names a credential. Case and punctuation make no difference: ``newPassword`` is ``new_password``.

    The rule differs by what happens to the value:

    * ``document``: the field is dropped, so it has to be a credential. ``passwordLastSetAt`` and ``key`` stay.
    * ``auth0``: likewise, in Auth0's log entries, which say how keys and live tickets were configured.
    * ``template``: the template is refused; no message shows what only has to do with a password. Links are what a message
      is for: ``reset_url`` is a variable of ours.
    * ``setting``: the value is masked where it is shown, which costs nothing; but a link is the address of a page.
    * ``text``: likewise, in any text of others; a link there is a person's own.
    """
    return isinstance(name, str) and _RULES[where].fullmatch(_NOT_OF_NAMES.sub("", name.lower())) is not None
