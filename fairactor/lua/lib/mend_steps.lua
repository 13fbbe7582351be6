-- The steps of a repair: how far it is, and how much one call may do.
--
-- The state of a repair stands in MENDING, where any client finds it. Fields that begin with a dot say how far it is. The
-- others are what it has found: 't' and a task -> where the task stands; 'c' and a tenant -> its counts, one byte longer
-- once they are written; 'l' and a limit -> how many tasks run that count for it; 'a' and a task -> the one that follows
-- it. One command writes what a call has found and how far it got. So a call that breaks off is repeated, and counts once.
-- Scans may return a key or a field twice: the second time, it is known where the task stands.
--
-- While a repair runs, META says that the shard is torn, so all other scripts are refused.

local MOST = 400 -- about how many commands a call sends
local CHUNK = 60 -- fields that a scan returns, about
local NAMES_AT_ONCE = 50 -- names of keys that are read at once
local MOST_NOTES = 1000 -- lines of a kind in the report
local KEEP_STATE, KEEP_LISTS, KEEP_REPORT = 3600000, 86400000, 600000 -- ms
local SILENT = 1000 -- ms after which another client goes on
local EDITION = '2:' -- another one if the phases, or the fields of the state, mean something else than in the release before
local TENANTS, LIMITS_FOUND = ':tenants', ':limits' -- names of lists, beside the prefixes of keys

local state = {} -- the fields with a dot, without it
local spent = 0
local found_now, reports, listed = {}, {}, {} -- to be written: fields of MENDING; lines of the report; list -> names

local function spend(n) spent = spent + n end
local function is_spent() return spent >= MOST end

-- Returns the list of the keys with a prefix, or another list.
local function list_of(prefix)
  return MENDING_LIST .. (prefix:sub(1, 1) == ':' and prefix or prefix:sub(#META + 1))
end

-- Deletes all lists.
local function forget_lists()
  local keys = { list_of(TENANTS), list_of(LIMITS_FOUND) }
  for i, prefix in ipairs(TYPES_OF_PREFIXES) do keys[i + 2] = list_of(prefix[1]) end
  redis.call('UNLINK', unpack(keys))
end

-- Adds a name to a list; `save_lists` writes it.
local function list(prefix, name)
  local key = list_of(prefix)
  listed[key] = listed[key] or {}
  table.insert(listed[key], name)
end

local function save_lists()
  for key, names in pairs(listed) do
    for i = 1, #names, 1000 do redis.call('RPUSH', key, unpack(names, i, math.min(i + 999, #names))) end
    redis.call('PEXPIRE', key, KEEP_LISTS)
  end
  listed = {}
end

-- Adds a line to the report: 'r' for what was repaired, 's' for what was set aside, 'c' for a cancellation to repeat.
local function report(kind, line)
  local lines = tonumber(state['lines of ' .. kind]) or 0
  if kind ~= 'c' and lines >= MOST_NOTES then return end
  state['lines of ' .. kind] = string.format('%d', lines + 1)
  reports[#reports + 1] = kind .. line
end

local function save_report()
  if #reports == 0 then return end
  redis.call('RPUSH', MENDED, unpack(reports))
  redis.call('PEXPIRE', MENDED, KEEP_REPORT)
  reports = {}
end

-- Returns what this repair has found under some names; false for each of which it knows nothing.
local function known_of(kind, names)
  local fields, values = {}, {}
  for i, name in ipairs(names) do fields[i] = kind .. name end
  if #fields > 0 then values = redis.call('HMGET', MENDING, unpack(fields)) end
  for i, field in ipairs(fields) do values[i] = found_now[field] or values[i] end
  return values
end
local function known(kind, name)
  return found_now[kind .. name] or redis.call('HGET', MENDING, kind .. name)
end
local function note(kind, name, value) found_now[kind .. name] = value end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns what identifies the process of the server. On another one, cursors mean nothing.
local function process_of_server()
  local info = redis.pcall('INFO', 'server')
  return EDITION .. (type(info) == 'string' and info:match('run_id:(%x+)') or '?')
end

-- Writes what the call has found, and how far it is.
local function save_step()
  save_lists()
  save_report()
  local flat = {}
  state.seen = string.format('%d', now_ms())
  for field, value in pairs(state) do flat[#flat + 1], flat[#flat + 2] = '.' .. field, value end
  for field, value in pairs(found_now) do flat[#flat + 1], flat[#flat + 2] = field, value end
  redis.call('HSET', MENDING, unpack(flat))
  redis.call('PEXPIRE', MENDING, KEEP_STATE)
  found_now = {}
end

-- Reads how far the repair is. Returns whether it can go on: not if the process of the server is another one, or if
-- somebody has completed the repair in one step, as the release before does. That writes the stamp of META. Also returns
-- whether the repair is still the same.
local function read_state()
  if redis.call('TYPE', MENDING).ok ~= 'hash' or redis.call('TYPE', META).ok ~= 'hash' then return false end
  local fields = { 'script', 'phase', 'at', 'cursor', 'run', 'stamp', 'began', 'helper', 'seen', 'lines of r', 'lines of s' }
  local dotted = {}
  for i, field in ipairs(fields) do dotted[i] = '.' .. field end
  local stored = redis.call('HMGET', MENDING, unpack(dotted))
  for i, field in ipairs(fields) do
    if not stored[i] then return false end
    state[field] = stored[i]
  end
  local meta_fields = redis.call('HMGET', META, 'torn', 'stamp')
  local is_same = meta_fields[1] == '1' and meta_fields[2] == state.stamp
  return is_same and state.run == process_of_server(), is_same
end

-- Whether another client is at it.
local function is_busy(helper)
  local since = now_ms() - tonumber(state.seen)
  return state.helper ~= helper and since >= 0 and since < SILENT
end

local function next_phase()
  state.phase, state.at, state.cursor = string.format('%d', state.phase + 1), '0', '0'
end

local function next_key() state.at, state.cursor = string.format('%d', state.at + 1), '0' end

-- Does a part of a scan of one key. The function of the phase returns true if it has to see the same part again.
local function scan_part(phase, name, key)
  local part = redis.call(phase.scan, key, state.cursor, 'COUNT', CHUNK)
  local flat, again = part[2], false
  spend(2)
  for i = 1, #flat, 1000 do -- a compact key is returned whole
    if i > 1 then save_step() end
    again = phase.run(name, { unpack(flat, i, math.min(i + 999, #flat)) }, key) or again
  end
  if again then return end
  if part[1] == '0' then next_key() else state.cursor = part[1] end
end

-- Goes on with a phase: over keys that it names, or over a list, whose names follow a prefix.
local function go_on(phase)
  if phase.once then
    phase.once()
    return next_phase()
  end
  if phase.part then return phase.part() end
  local at, names = tonumber(state.at), {}
  if phase.keys then
    names = { unpack(phase.keys, at + 1) }
  else
    if listed[list_of(phase.over)] then save_lists() end
    names = redis.call('LRANGE', list_of(phase.over), at, at + (phase.size or NAMES_AT_ONCE) - 1)
    spend(5)
  end
  if #names == 0 then return next_phase() end
  if phase.many then -- all these at once
    state.at = string.format('%d', at + #names)
    return phase.many(names)
  end
  for _, name in ipairs(names) do
    local key = phase.keys and name or phase.over .. name
    local before = state.at
    repeat
      if phase.scan then scan_part(phase, name, key) else
        phase.run(name, key)
        next_key()
      end
    until state.at ~= before or is_spent()
    if is_spent() then return end
  end
end

-- Does some of the phases. Returns the name of the script that comes next; nil if all is done.
local function run_phases(phases, next_script)
  while not is_spent() and phases[tonumber(state.phase)] do go_on(phases[tonumber(state.phase)]) end
  local is_done = not phases[tonumber(state.phase)]
  if is_done and next_script then
    state.script, state.phase, state.at, state.cursor = next_script, '1', '0', '0'
  end
  save_step()
  if next_script or not is_done then return state.script end
end

-- Returns why a script of the repair cannot go on, as its reply, or nil: it is done, another client is at it, or another
-- script comes next.
local function stops(script, helper)
  if not read_state() then return redis.pcall('HGET', META, 'torn') == '1' and 'mend' or '' end
  if is_busy(helper) then return 'busy' end
  state.helper = helper
  if state.script ~= script then return state.script end
end
