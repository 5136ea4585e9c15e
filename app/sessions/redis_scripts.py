"""What each change of a Redis session store is in Lua: a script runs whole and alone, and decides before it writes.

Boundary: the text of scripts. What goes in and comes out is `app.sessions.redis`'s. Each is sent in full, since Redis
may forget a script at any time and a script is short beside a state.
"""

from __future__ import annotations

_ALIVE = """
local now = tonumber(ARGV[1])

-- When what a key holds expires, if it has not yet. An error where the key holds what no script here wrote.
local function alive(key)
  local expires = redis.call('HGET', key, 'expires_at')
  if not expires and redis.call('EXISTS', key) == 0 then return false end
  expires = tonumber(expires)
  if not expires then error({err = 'FOREIGN'}) end
  return expires > now and expires
end
"""

KEEP = (
    _ALIVE
    + """
-- KEYS: a session and all sessions; with an answer also that one and all answers.
-- ARGV: now; the version in whose place the session is put, '' where it is new; then for the session and the answer
-- each: when it expires, milliseconds until then, how many names and values follow, and these.
-- Returns 1 where it is kept, 0 where another version stands there, or the answer kept already as names and values.
if KEYS[3] and alive(KEYS[3]) then return redis.call('HGETALL', KEYS[3]) end
if ARGV[2] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif not alive(KEYS[1]) or redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then
  return 0
end
-- An error of these is found before anything is written, since nothing that a script wrote is undone.
for i = 2, #KEYS, 2 do redis.call('ZCARD', KEYS[i]) end
local place = 3
for i = 1, #KEYS, 2 do
  local count = tonumber(ARGV[place + 2])
  -- First what needs memory: where there is none, nothing has changed.
  redis.call('ZADD', KEYS[i + 1], ARGV[place], KEYS[i])
  redis.call('DEL', KEYS[i])
  redis.call('HSET', KEYS[i], unpack(ARGV, place + 3, place + 2 + count))
  redis.call('PEXPIRE', KEYS[i], ARGV[place + 1])
  place = place + 3 + count
end
return 1
"""
)

DELETE = (
    _ALIVE
    + """
-- KEYS: a session, all sessions. ARGV: now. Returns 1 where there was one, else 0.
if not alive(KEYS[1]) then return 0 end
redis.call('ZREM', KEYS[2], KEYS[1])
return redis.call('UNLINK', KEYS[1])
"""
)

PURGE = """
-- KEYS: all sessions, all answers. ARGV: now, how many of each to remove at most. Returns how many of each went.
local removed = {}
for i, all in ipairs(KEYS) do
  local gone = redis.call('ZRANGEBYSCORE', all, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
  for _, key in ipairs(gone) do
    redis.call('ZREM', all, key)
    redis.call('UNLINK', key)
  end
  removed[i] = #gone
end
return removed
"""

HOLDS = """
-- KEYS: all sessions. ARGV: now, a bundle, where to go on looking ('0' at first), how many to look at.
-- Returns where to go on, '0' at the end, and 1 where a session looked at stands on the bundle and is not expired.
local part = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
for i = 1, #part[2], 2 do
  if tonumber(part[2][i + 1]) > tonumber(ARGV[1]) and redis.call('HGET', part[2][i], 'bundle') == ARGV[2] then
    return {part[1], 1}
  end
end
return {part[1], 0}
"""
