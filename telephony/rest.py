"""Twilio's REST API, as far as a running call needs it."""

import base64

import aiohttp

_SECONDS = 10.0


class RestError(RuntimeError):
    """Twilio refused or could not be reached; the message says why."""


class TwilioRest:
    """Steers calls of one account."""

    def __init__(self, auth_token: str, url: str):
        """Use an account.

        Args:
            auth_token: The account's.
            url: Of the API.
        """
        self._auth_token = auth_token
        self._url = url.rstrip("/")

    async def execute(self, account_sid: str, call_sid: str, twiml: str) -> None:
        """Have a running call leave what it does and execute a document.

        Args:
            account_sid: The account it belongs to.
            call_sid: The call.
            twiml: The document.

        Raises:
            RestError: Twilio refused, with its code and message, or cannot be reached.
        """
        url = f"{self._url}/2010-04-01/Accounts/{account_sid}/Calls/{call_sid}.json"
        credentials = base64.b64encode(f"{account_sid}:{self._auth_token}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data={"Twiml": twiml}, headers=headers) as response,
            ):
                if response.status >= 300:
                    raise RestError(f"Twilio: HTTP {response.status}: {await response.text()}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RestError(f"Twilio's REST API cannot be reached: {error}") from error
