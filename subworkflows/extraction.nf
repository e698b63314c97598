// Extraction: one job, or one per group of tilt series where there are many, with the same result.
include { SPLIT } from '../modules/core/split'
include { EXTRACT } from '../modules/relion/extract'
include { EXTRACT as EXTRACT_GROUP } from '../modules/relion/extract'
include { MERGE_EXTRACT } from '../modules/core/merge_extract'

workflow EXTRACTION {
    take:
    inputs // [meta, settings, import job, particle set]

    main:
    sets = inputs.branch { _meta, settings, _tilt_series, _particles ->
        many: settings.groups > 1
        few: true
    }
    EXTRACT(sets.few)

    SPLIT(sets.many.map { meta, settings, tilt_series, particles -> [meta, settings.groups, tilt_series, particles] })
    EXTRACT_GROUP(
        sets.many.join(SPLIT.out).flatMap { meta, settings, tilt_series, _particles, groups ->
            members(meta, groups).collect { member, group -> [member, settings, tilt_series, group] }
        }
    )
    parts = EXTRACT_GROUP.out
        .map { meta, job -> [groupKey(meta.subMap(['id', 'project']), meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }
    MERGE_EXTRACT(sets.many.join(parts).map { meta, settings, _tilt_series, particles, groups -> [meta, settings, particles, groups] })

    emit:
    job = EXTRACT.out.mix(MERGE_EXTRACT.out) // [meta, extract job]
}

def members(meta, groups) {
    return groups.withIndex().collect { group, number -> [meta + [group: number + 1, groups: groups.size()], group] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
