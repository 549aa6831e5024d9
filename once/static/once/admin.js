/* Reads a part of a page again, as long as something runs or waits, and changes what differs. */
"use strict";
{
    const live = () => document.getElementById("once-live");
    const keyOf = (node) => node.dataset?.key ?? "";

    // Elements stay where they can, and with them ticks, focus, open details, selection and scroll.
    const patch = (old, fresh) => {
        if (old.isEqualNode(fresh)) return;
        if (old.nodeName !== fresh.nodeName) {
            old.replaceWith(fresh);
            return;
        }
        if (!(old instanceof Element)) {
            old.nodeValue = fresh.nodeValue;
            return;
        }
        for (const name of old.getAttributeNames())
            if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
        for (const name of fresh.getAttributeNames())
            if (name !== "open" && old.getAttribute(name) !== fresh.getAttribute(name))
                old.setAttribute(name, fresh.getAttribute(name));
        const keyed = new Map([...old.children].filter(keyOf).map((each) => [keyOf(each), each]));
        let at = old.firstChild;
        for (const child of [...fresh.childNodes]) {
            const own = keyed.get(keyOf(child));
            if (own) {
                if (own === at) at = at.nextSibling;
                else old.insertBefore(own, at);
                patch(own, child);
            } else if (at && !keyOf(at) && !keyOf(child)) {
                const next = at.nextSibling;
                patch(at, child);
                at = next;
            } else old.insertBefore(child, at);
        }
        while (at) {
            const next = at.nextSibling;
            at.remove();
            at = next;
        }
    };

    const read = async () => {
        const headers = { "X-Requested-With": "XMLHttpRequest" };
        const response = await fetch(location.href, { headers });
        if (!response.ok || response.redirected) throw new Error(response.statusText);
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        return page.getElementById("once-live");
    };

    const refresh = async () => {
        if (!document.hidden) {
            const focused = document.activeElement;
            let fresh = null;
            try {
                fresh = await read();
            } catch {
                // The page says so, and tries again.
            }
            if (fresh) patch(live(), fresh);
            if (focused !== document.activeElement && focused.isConnected)
                focused.focus({ preventScroll: true });
            document.getElementById("once-stale").hidden = fresh !== null;
        }
        later();
    };

    const later = () => {
        const seconds = Number(live()?.dataset.seconds);
        if (seconds) setTimeout(refresh, seconds * 1000);
    };

    const boxes = () => [...document.querySelectorAll("#result_list tbody input[type=checkbox]")];
    document.addEventListener("change", ({ target }) => {
        if (target.id === "once-all") for (const each of boxes()) each.checked = target.checked;
        else if (boxes().includes(target))
            document.getElementById("once-all").checked = boxes().every((each) => each.checked);
    });

    later();
}
