"""The Lua scripts of `RedisPresence`, by the name of the method that runs them.

All keys begin with a prefix, which is ``KEYS[1]``, and ``P`` in the scripts. After it come::

    servers            sorted set: servers, by the time at which their lease ends, in milliseconds
    holders            set: servers that have connections in rooms
    of:SERVER          set: "CONNECTION ROOM"
    lost               sorted set: "CONNECTION ROOM", by the time at which the connection leaves
    rooms:PROJECT      set: rooms
    room:ROOM          hash: project, name, title, created_by, created_by_verified, created_at,
                       version
    members:ROOM       hash: member to its JSON
    counts:ROOM        hash: member to its number of connections
    places:ROOM        hash: connection to "SERVER MEMBER"

In the JSON of a member, the state is a text, so that Lua does not decode it.
"""

from __future__ import annotations

# functions that all scripts can use
_LIBRARY = """
local P = KEYS[1]
-- seconds and microseconds
local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]), tonumber(t[2])
end
-- milliseconds
local function now() local s, us = clock() return s * 1000 + math.floor(us / 1000) end
-- 'FIRST REST' to FIRST and REST
local function split(text) return string.match(text, '^(%S+) (.*)$') end
-- increases the version of a room and returns the change with this version
local function change(room, event, text)
  redis.call('HINCRBY', P..'room:'..room, 'version', 1)
  local names = redis.call('HMGET', P..'room:'..room, 'project', 'name', 'version')
  return {event, names[1], names[2], text, redis.call('HLEN', P..'members:'..room), names[3]}
end
-- removes a connection, and its member if that has no other; returns the departure or false
local function depart(room, connection)
  local place = redis.call('HGET', P..'places:'..room, connection)
  if not place then return false end
  local server, member = split(place)
  redis.call('HDEL', P..'places:'..room, connection)
  redis.call('SREM', P..'of:'..server, connection..' '..room)
  redis.call('ZREM', P..'lost', connection..' '..room)
  if redis.call('HINCRBY', P..'counts:'..room, member, -1) > 0 then return false end
  redis.call('HDEL', P..'counts:'..room, member)
  local text = redis.call('HGET', P..'members:'..room, member)
  redis.call('HDEL', P..'members:'..room, member)
  local departure = change(room, 'left', text)
  if departure[5] == 0 then
    redis.call('DEL', P..'room:'..room, P..'members:'..room, P..'counts:'..room, P..'places:'..room)
    redis.call('SREM', P..'rooms:'..departure[2], room)
  end
  return departure
end
-- returns the properties of a room, or false if it has no members
local function info(room)
  local i = redis.call('HMGET', P..'room:'..room, 'title', 'created_by', 'created_by_verified',
    'created_at', 'version')
  if not i[1] then return false end
  i[6] = redis.call('HLEN', P..'members:'..room)
  return i
end
"""
_RENEW_LEASE = """
local lease = redis.call('ZSCORE', P..'servers', ARGV[1])
redis.call('ZADD', P..'servers', now() + tonumber(ARGV[2]), ARGV[1])
return lease and 1 or 0
"""
_ENTER = """
local room, project, name, connection, server = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local member, display_name, title, claimed, state = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
if redis.call('EXISTS', P..'room:'..room) == 0 then
  if ARGV[11] == '0' then return false end
  local s, us = clock()
  local by = #claimed > 1 and string.sub(claimed, 2) or member
  redis.call('HSET', P..'room:'..room, 'project', project, 'name', name, 'title', title,
    'created_by', by, 'created_by_verified', claimed == '' and 1 or 0,
    'created_at', string.format('%d.%06d', s, us), 'version', string.format('%d%06d', s, us))
  redis.call('SADD', P..'rooms:'..project, room)
end
local place = redis.call('HGET', P..'places:'..room, connection)
if not place then
  redis.call('HINCRBY', P..'counts:'..room, member, 1)
end
redis.call('HSET', P..'places:'..room, connection, server..' '..member)
redis.call('SADD', P..'of:'..server, connection..' '..room)
redis.call('SADD', P..'holders', server)
redis.call('ZREM', P..'lost', connection..' '..room)
local text = redis.call('HGET', P..'members:'..room, member)
local old = text and cjson.decode(text)
local new = {id = member, name = display_name, claimed = claimed}
new.state = state ~= '' and state or (old and old.state or '{}')
new.place = old and old.place or redis.call('HGET', P..'room:'..room, 'version')
local changed = false
if not old or old.name ~= new.name or old.claimed ~= new.claimed or old.state ~= new.state then
  text = cjson.encode(new)
  redis.call('HSET', P..'members:'..room, member, text)
  changed = change(room, old and 'updated' or 'joined', text)
end
return {info(room), changed}
"""
_LEAVE = "return depart(ARGV[1], ARGV[2])"
_MARK_DISCONNECTED = """
local leaves_at = now() + tonumber(ARGV[1])
for i = 2, #ARGV do
  local connection, room = split(ARGV[i])
  if redis.call('HEXISTS', P..'places:'..room, connection) == 1 then
    redis.call('ZADD', P..'lost', leaves_at, ARGV[i])
  end
end
"""
_SET_STATE = """
local room = ARGV[1]
local place = redis.call('HGET', P..'places:'..room, ARGV[2])
if not place then return false end
local _, member = split(place)
local value = cjson.decode(redis.call('HGET', P..'members:'..room, member))
if value.state == ARGV[3] then return false end
value.state = ARGV[3]
local text = cjson.encode(value)
redis.call('HSET', P..'members:'..room, member, text)
return change(room, 'updated', text)
"""
_LIST_MEMBERS = """
return {redis.call('HGET', P..'room:'..ARGV[1], 'version'),
  redis.call('HVALS', P..'members:'..ARGV[1])}
"""
_GET_ROOM = "return info(ARGV[1])"
_EXPIRE = """
local departures, t = {}, now()
redis.call('ZREMRANGEBYSCORE', P..'servers', '-inf', t)
for _, server in ipairs(redis.call('SMEMBERS', P..'holders')) do
  if not redis.call('ZSCORE', P..'servers', server) then
    for _, item in ipairs(redis.call('SMEMBERS', P..'of:'..server)) do
      local connection, room = split(item)
      local departure = depart(room, connection)
      if departure then table.insert(departures, departure) end
    end
    redis.call('DEL', P..'of:'..server)
    redis.call('SREM', P..'holders', server)
  end
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', P..'lost', '-inf', t)) do
  local connection, room = split(item)
  local departure = depart(room, connection)
  if departure then table.insert(departures, departure) end
  redis.call('ZREM', P..'lost', item)
end
return departures
"""
_LIST_ROOMS = """
local rooms, ids, limit = {}, {}, tonumber(ARGV[3])
-- the ids of a project's rooms all begin in the same way, so that they are in the order of names
for _, room in ipairs(redis.call('SMEMBERS', P..'rooms:'..ARGV[1])) do
  if room > ARGV[2] then table.insert(ids, room) end
end
table.sort(ids)
for _, room in ipairs(ids) do
  if #rooms == limit then break end
  local members = redis.call('HVALS', P..'members:'..room)
  table.insert(rooms, {redis.call('HGET', P..'room:'..room, 'name'), info(room), members})
end
return rooms
"""

SCRIPTS = {
    name: _LIBRARY + lua
    for name, lua in {
        "renew_lease": _RENEW_LEASE,
        "enter": _ENTER,
        "leave": _LEAVE,
        "mark_disconnected": _MARK_DISCONNECTED,
        "set_state": _SET_STATE,
        "list_members": _LIST_MEMBERS,
        "get_room": _GET_ROOM,
        "expire": _EXPIRE,
        "list_rooms": _LIST_ROOMS,
    }.items()
}
