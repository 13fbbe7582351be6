-- Removes damage that would keep other scripts from running: keys of another type, and values that cannot be read.
--
-- It comes before all other parts, which read some of these keys as soon as they are included. What cannot be rebuilt
-- it sets aside, under keys that no script reads and that anybody may delete.

-- @takes HEADER, MARK, DAMAGED, LIVE, DONE, DEAD_STATE, CANCELED_STATE, CRITICAL from lib/base.lua
-- @takes COUNTS_FORMAT from lib/counts.lua
-- @takes HOLD from lib/plugins.lua
-- @takes shard_keys from mend.lua
-- @takes KEEP_COSTS from lib/cost.lua

local MOST_NOTES = 1000 -- lines of a report
local RESERVATION, SESSION = 60000, '>c8Hc0' -- as in lib/room.lua and lib/session.lua
local REMEMBER_SENDS = 3600000 -- ms, as in send.lua
local KEEP_RECORDS = 604800000 -- ms: a settled record that nobody gave a time to live
local NEW_LEASE = 60000 -- ms, for a lease whose end makes no sense: a living runtime renews it
local LARGEST, CENTURY = 1e15, 3.2e15 -- the largest tag or time in ms that is not nonsense; a hundred years in µs
local CANCELED_OUTCOME = '{"error":{"type":"TaskCanceled","message":"by handle.cancel()"}}'

local repaired, set_aside = {}, {}
local remove_damage
do
  local aside_at, now_us
  local call = redis.call

  local function type_of(key) return call('TYPE', key).ok end
  local function whole(n) return string.format('%.0f', n) end

  -- Returns a stored number; nil if it is none, or no finite one.
  local function finite(stored)
    local n = tonumber(stored)
    if n and n == n and n > -math.huge and n < math.huge then return n end
  end

  local function in_range(stored, least, most)
    local n = finite(stored)
    return n and n >= least and n <= most
  end

  local function note(list, text) if #list < MOST_NOTES then list[#list + 1] = text end end
  local function note_repair(key, text) note(repaired, key .. ': ' .. text) end

  -- Returns a new name for what is set aside of a key.
  local function aside_of(key)
    local name = key == META and ':meta' or key:sub(#META + 1)
    local unused, n = ASIDE .. aside_at .. name, 0
    while call('EXISTS', unused) == 1 do
      n = n + 1
      unused = ASIDE .. aside_at .. '-' .. n .. name
    end
    return unused
  end

  local function set_key_aside(key, why)
    local name = aside_of(key)
    call('RENAME', key, name)
    note(set_aside, key .. ' ' .. why .. ': it is now ' .. name)
  end

  local function set_field_aside(key, field, value, why)
    local name = ASIDE .. aside_at .. key:sub(#META + 1)
    if type_of(name) ~= 'hash' and call('EXISTS', name) == 1 then name = name .. ':fields' end
    call('HSET', name, field, value)
    call('HDEL', key, field)
    note(set_aside, key .. ': ' .. why .. ' ' .. field .. ': it is now a field of ' .. name)
  end

  local function read_time()
    local time = call('TIME')
    now_us = time[1] * 1000000 + time[2]
    aside_at = whole(math.floor(now_us / 1000))
  end

  -- The hash of the shard itself. What was fixed when it was created comes with the call.
  local function repair_meta()
    if type_of(META) ~= 'hash' and type_of(META) ~= 'none' then set_key_aside(META, 'was no hash') end
    call('HSET', META, 'torn', '1')
    for i, field in ipairs({ 'version', 'shards', 'step', 'fair_by' }) do
      local given, stored = ARGV[i + 1], call('HGET', META, field)
      if given and stored ~= given then
        call('HSET', META, field, given)
        note_repair(META, field .. ' is ' .. given .. ' again')
      end
    end
    local most = { stamp = now_us + DAMAGED, behind = DAMAGED, virtual = LARGEST, period = LARGEST, turned = LARGEST,
      stolen = LARGEST }
    for field, limit in pairs(most) do
      local stored = call('HGET', META, field)
      if stored and not in_range(stored, 0, limit) then
        call('HDEL', META, field)
        note_repair(META, field .. ' made no sense')
      end
    end
    local total = call('HGET', META, 'total')
    if total and #total ~= 65 then
      call('HDEL', META, 'total')
      note_repair(META, 'the counts of the shard could not be read')
    end
    local kinds = call('HGET', META, 'kinds')
    if kinds and not kinds:match('^%d+[,%d]*$') then
      call('HDEL', META, 'kinds')
      note_repair(META, 'the kinds of runtimes could not be read')
    end
    call('HDEL', META, 'homes') -- only remembered (see homes.lua)
    local plugins = call('HGET', META, 'plugins')
    if plugins and not plugins:match('^,[%w_.,-]*$') then
      call('HDEL', META, 'plugins')
      note_repair(META, 'the plugins that the shard depends on could not be read')
    end
  end

  -- From here on by the shard's clock, which goes on where it was when the server's is set back.
  local function follow_clock() now_us = now_us + (finite(call('HGET', META, 'behind')) or 0) end

  local fixed_types, prefix_types = TYPES_OF_FIXED, TYPES_OF_PREFIXES

  -- Returns what a key is for, the same for all keys of a kind, the rest of its name, and the type it has to have.
  local function kind_of(key)
    local fixed = fixed_types[key]
    if fixed then return key, '', fixed end
    for _, known in ipairs(prefix_types) do
      if key:sub(1, #known[1]) == known[1] then return known[1], key:sub(#known[1] + 1), known[2] end
    end
    local plugin, rest = key:match('^:plugin:([^:]+):(.*)$', #META + 1)
    for _, known in ipairs(plugin and PLUGIN_TYPES or {}) do
      if known[1] == plugin and (known[2] == rest or known[3] and rest:sub(1, #known[2]) == known[2]) then
        return nil, '', known[4]
      end
    end
  end

  local function each_field(key, is_right, otherwise)
    local flat = call('HGETALL', key)
    for i = 1, #flat, 2 do
      if not is_right(flat[i + 1], flat[i]) then otherwise(key, flat[i], flat[i + 1]) end
    end
  end

  local function each_score(key, least, most, otherwise)
    local flat = call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #flat, 2 do
      if not in_range(flat[i + 1], least, most) then otherwise(key, flat[i]) end
    end
  end

  local function drop_field(key, field)
    call('HDEL', key, field)
    note_repair(key, 'the value of ' .. field .. ' could not be read')
  end

  local function drop_member(key, member)
    call('ZREM', key, member)
    note_repair(key, 'the score of ' .. member .. ' made no sense')
  end

  -- Whether a value is packed in this format, and all its numbers are finite.
  local function is_packed(format, value)
    local parts = { pcall(struct.unpack, format, value) }
    if not parts[1] then return false end
    for i = 2, #parts do
      if type(parts[i]) == 'number' and not finite(parts[i]) then return false end
    end
    return true, parts
  end

  local function is_counts(value)
    local fits, parts = is_packed(COUNTS_FORMAT, value)
    return #value == 65 and fits and parts[10] >= 0 and parts[11] >= 0 and parts[12] >= 0
  end

  local function is_json(value)
    local ok, decoded = pcall(cjson.decode, value)
    return ok and type(decoded) == 'table'
  end

  local function is_message_pack(value)
    local ok, decoded = pcall(cmsgpack.unpack, value)
    return ok and type(decoded) == 'table' and decoded
  end

  -- Returns packed settings, or false.
  local function settings_in(value)
    local kind = value:byte() or 0
    local is_map = kind >= 128 and kind < 144 or kind == 222 or kind == 223 or value == '\144' -- or an empty table
    return is_map and is_message_pack(value)
  end

  local function is_policy(value)
    local policy = settings_in(value)
    if not policy then return false end
    local function fits(setting, kind)
      local found = policy[setting]
      return found == nil or (type(found) == kind and (kind ~= 'number' or found == found and found > 0))
    end
    local rate = policy.rate
    local rate_fits = rate == nil or (type(rate) == 'table' and finite(rate[2]) and finite(rate[3]) and rate[2] >= 0)
    return rate_fits and fits('weight', 'number') and (not policy.weight or policy.weight < math.huge)
      and fits('concurrency', 'number') and fits('backlog', 'number') and fits('group', 'string')
      and fits('paused', 'boolean')
  end

  local function is_limit(value)
    local limit = settings_in(value)
    if not limit then return false end
    for _, settings in ipairs({ limit, type(limit.declared) == 'table' and limit.declared or {} }) do
      local rate, concurrency, paused = settings.rate, settings.concurrency, settings.paused
      local rate_fits = rate == nil or type(rate) == 'table' and finite(rate[2]) and finite(rate[3]) and rate[2] >= 0
      local fits = (concurrency == nil or type(concurrency) == 'number' and concurrency > 0)
        and (paused == nil or type(paused) == 'number' and finite(paused))
      if not (rate_fits and fits) then return false end
    end
    return limit.declared == nil or type(limit.declared) == 'table'
  end

  local function is_watchers(value)
    local runtimes = is_message_pack(value)
    if not runtimes or #runtimes == 0 then return false end
    for _, runtime in ipairs(runtimes) do
      if type(runtime) ~= 'string' then return false end
    end
    return true
  end

  -- Whether the 8 bytes are the number of a turn or a batch: nobody takes so many.
  local function is_number(packed) return struct.unpack('>I8', packed) < LARGEST end

  local function is_session(value)
    local fits, parts = is_packed(SESSION, value)
    return fits and is_number(parts[2]) and is_message_pack(value:sub(parts[4]))
  end

  local function is_mark(value)
    local fits, parts = is_packed(MARK, value)
    local length = fits and parts[7] or 0
    local readable = length == 0 or length < #value - 65 and pcall(cmsgpack.unpack, value:sub(-length))
    return fits and #value > 65 and parts[4] >= 1 and parts[4] <= CRITICAL and readable
  end

  local function is_of_kind(value) return value:match('^%d+$') or value:match('^%d+ %x*$') end
  local function is_kind(value) return value:match('^%d+$') end
  local function is_cost(value, field) return is_packed((field == '' or field:byte() == 31) and '>ddd' or '>d', value) end
  local function is_keyed(value) return #value > 8 and is_packed('>d', value) end
  local function is_cancel(value) return is_packed('>d', value) end
  local function is_reservation(value) return is_packed('>dd', value) end

  local function expires_in(key, ms)
    if call('PTTL', key) == -1 then
      call('PEXPIRE', key, ms)
      note_repair(key, 'it did not expire')
    end
  end

  local checks = {
    [COUNTS] = function(key) each_field(key, is_counts, drop_field) end,
    [POLICY] = function(key)
      each_field(key, is_policy, function(_, field, value) set_field_aside(key, field, value, 'not the policy of') end)
    end,
    [LIMIT_SETTINGS] = function(key)
      each_field(key, is_limit, function(_, field, value) set_field_aside(key, field, value, 'not the settings of') end)
    end,
    [LIMIT_DUES] = function(key) each_score(key, 0, now_us + CENTURY, drop_member) end,
    [LIMIT_BUSY] = function(key) each_field(key, function(since) return in_range(since, 0, CENTURY) end, drop_field) end,
    [GROUPS] = function(key) each_field(key, function(time) return in_range(time, 0, LARGEST) end, drop_field) end,
    [HOMES] = function(key)
      each_field(key, function(time) return in_range(time, 0, LARGEST) end, function(_, runtime)
        call('HSET', key, runtime, 0)
        note_repair(key, 'the virtual time of ' .. runtime .. ' made no sense')
      end)
    end,
    [WATCHERS] = function(key) each_field(key, is_watchers, drop_field) end,
    [SESSIONS] = function(key) each_field(key, is_session, drop_field) end,
    [FLEET] = function(key)
      each_field(key, is_json, function(_, runtime)
        call('HSET', key, runtime, '{}')
        note_repair(key, 'the description of ' .. runtime .. ' could not be read')
      end)
    end,
    [PROGRESS] = function(key) each_field(key, is_json, drop_field) end,
    [KEYED] = function(key) each_field(key, is_keyed, drop_field) end,
    [AGAIN] = function(key) each_field(key, function(value) return value ~= '' end, drop_field) end,
    [HELD] = function(key)
      each_field(key, function(value) return is_packed(HOLD, value) end,
        function(_, field, value) set_field_aside(key, field, value, 'not what holds back') end)
    end,
    [KIND_OF] = function(key) each_field(key, is_kind, drop_field) end,
    [KIND_NUMBERS] = function(key) each_field(key, is_kind, drop_field) end,
    [KIND] = function(key)
      each_field(key, is_of_kind, function(_, field)
        if call('EXISTS', key) == 1 then note_repair(key, 'what runtimes can run could not be read') end
        call('DEL', key) -- they say it again
      end)
    end,
    [ROUTES] = function(key) each_field(key, function(value) return value == '1' end, drop_field) end,
    [LANES] = function(key)
      each_field(key, function(value) return in_range(value, 0, CENTURY) end, function(_, lane)
        call('HSET', key, lane, 0)
        note_repair(key, 'since when ' .. lane .. ' is not served made no sense')
      end)
    end,
    [IN_LANE] = function(key) each_score(key, 0, CENTURY, drop_member) end,
    [KIND_RING] = function(key) each_score(key, -LARGEST, LARGEST, drop_member) end,
    [KIND_GROUP] = function(key) each_score(key, -LARGEST, LARGEST, drop_member) end,
    [KIND_GROUPS] = function(key) each_field(key, function(time) return in_range(time, 0, LARGEST) end, drop_field) end,
    [RING] = function(key) each_score(key, -LARGEST, LARGEST, drop_member) end,
    [GROUP] = function(key) each_score(key, -LARGEST, LARGEST, drop_member) end,
    [RATES] = function(key) each_score(key, -now_us, now_us + CENTURY, drop_member) end,
    [DRAINED] = function(key) each_score(key, 0, 4294967295, drop_member) end,
    [DEAD] = function(key) each_score(key, 0, now_us * 100, drop_member) end,
    [SUSPECTED] = function(key) each_score(key, 0, now_us + CENTURY, drop_member) end,
    [DELAYED] = function(key) each_score(key, 0, LARGEST, drop_member) end,
    [SCHEDULED] = function(key) each_score(key, 0, LARGEST, drop_member) end,
    [LEASES] = function(key)
      each_score(key, 0, now_us / 1000 + CENTURY / 1000, function(_, runtime)
        call('ZADD', key, whole(math.floor(now_us / 1000) + NEW_LEASE), runtime)
        note_repair(key, 'the end of the lease of ' .. runtime .. ' made no sense')
      end)
    end,
    [CLAIMS] = function(key) each_field(key, is_mark, drop_field) end,
    [CANCELS] = function(key)
      each_field(key, is_cancel, function(_, id)
        call('HSET', key, id, struct.pack('>d', KEEP_RECORDS) .. CANCELED_OUTCOME)
        note_repair(key, 'the cancellation of ' .. id .. ' could not be read')
      end)
    end,
    [COSTS] = function(key)
      each_field(key, is_cost, drop_field)
      expires_in(key, KEEP_COSTS)
    end,
    [RESERVED] = function(key)
      each_field(key, is_reservation, drop_field)
      expires_in(key, RESERVATION)
    end,
    [SENT] = function(key)
      local stored = call('GET', key)
      local ok = #stored > 8 and is_number(stored) and pcall(cmsgpack.unpack, stored:sub(9))
      if not ok then
        call('DEL', key)
        note_repair(key, 'it could not be read')
      else
        expires_in(key, REMEMBER_SENDS)
      end
    end,
    [TASK] = function(key)
      local header = call('GETRANGE', key, 0, 600)
      local fits, parts = is_packed(HEADER, header)
      local state = header:sub(1, 1)
      if #header < 15 or header:byte(3) < 1 or header:byte(3) > CRITICAL
        or not (state == LIVE or state == DONE or state == DEAD_STATE or state == CANCELED_STATE)
        or #header < 15 + 256 * header:byte(14) + header:byte(15) then
        return set_key_aside(key, 'is no record of a task')
      end
      if not fits or not in_range(parts[6], 0, LARGEST * 1000) then
        call('SETRANGE', key, 5, struct.pack('>d', now_us))
        note_repair(key, 'its time made no sense')
      end
      if state ~= LIVE then expires_in(key, KEEP_RECORDS) end
    end,
  }

  -- A runtime with tenants of its own is a dedicated one.
  local function rebuild_homes()
    for _, key in ipairs(shard_keys) do
      local prefix, runtime = kind_of(key)
      if (prefix == ASSIGNED or prefix == STEAL) and call('EXISTS', key) == 1 and call('ZSCORE', LEASES, runtime)
        and call('HEXISTS', HOMES, runtime) == 0 then
        call('HSET', HOMES, runtime, 0)
        note_repair(HOMES, runtime .. ' serves tenants of its own again')
      end
    end
  end

  function remove_damage()
    read_time()
    repair_meta()
    follow_clock()
    for _, key in ipairs(shard_keys) do
      local kind, _, type = kind_of(key)
      local found = type_of(key)
      if type and found ~= type and found ~= 'none' then
        set_key_aside(key, 'was a ' .. found .. ' instead of a ' .. type)
      elseif kind and checks[kind] and found ~= 'none' then
        checks[kind](key)
      end
    end
    rebuild_homes()
  end
end
