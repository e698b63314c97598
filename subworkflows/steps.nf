// The steps that go through the tilt series: one job each, or where there are many of them, several side by side over
// groups of tilt series, with the same result.
include { SPLIT } from '../modules/core/split'
include { EXTRACT ; EXTRACT as EXTRACT_GROUP } from '../modules/relion/extract'
include { MERGE_EXTRACT } from '../modules/core/merge_extract'
include { RECONSTRUCT ; RECONSTRUCT as RECONSTRUCT_GROUP } from '../modules/relion/reconstruct'
include { CTF_REFINE ; CTF_REFINE as CTF_REFINE_GROUP } from '../modules/relion/ctf_refine'
include { POLISH ; POLISH as POLISH_GROUP } from '../modules/relion/polish'

workflow EXTRACTION {
    take:
    inputs // [meta, name, settings] + series + [particle set]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    EXTRACT(sets.few)

    IN_GROUPS(sets.many)
    EXTRACT_GROUP(IN_GROUPS.out)
    GATHERED(EXTRACT_GROUP.out)
    MERGE_EXTRACT(sets.many.join(GATHERED.out).map { row -> [row[0], row[1], row[2], row[7], row[8]] })

    emit:
    job = EXTRACT.out.mix(MERGE_EXTRACT.out) // [meta, extract job]
}

// Of the others the job that follows the groups only puts together what they found.
workflow RECONSTRUCTION {
    take:
    inputs // [meta, name, settings] + series + [particle set]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    IN_GROUPS(sets.many)
    RECONSTRUCT_GROUP(IN_GROUPS.out.map { row -> row + [[]] })
    GATHERED(RECONSTRUCT_GROUP.out)
    RECONSTRUCT(sets.few.map { row -> row + [[]] }.mix(sets.many.join(GATHERED.out)))

    emit:
    job = RECONSTRUCT.out // [meta, reconstruct job]
}

workflow CTF_REFINEMENT {
    take:
    inputs // [meta, name, settings] + series + [particle set, half maps, mask job, post-process job]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    IN_GROUPS(sets.many)
    CTF_REFINE_GROUP(IN_GROUPS.out.map { row -> row + [[]] })
    GATHERED(CTF_REFINE_GROUP.out.map { meta, job, _particles -> [meta, job] })
    CTF_REFINE(sets.few.map { row -> row + [[]] }.mix(sets.many.join(GATHERED.out)))

    emit:
    job = CTF_REFINE.out // [meta, job, particle set]
}

// Bayesian polishing.
workflow ALIGNMENT {
    take:
    inputs // [meta, name, settings] + series + [particle set, half maps, mask job, post-process job]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    IN_GROUPS(sets.many)
    POLISH_GROUP(IN_GROUPS.out.map { row -> row + [[]] })
    GATHERED(POLISH_GROUP.out.map { meta, job, _particles -> [meta, job] })
    POLISH(sets.few.map { row -> row + [[]] }.mix(sets.many.join(GATHERED.out)))

    emit:
    job = POLISH.out // [meta, job, particle set]
}

workflow IN_GROUPS {
    take:
    inputs // [meta, name, settings] + series + [particle set] + more

    main:
    SPLIT(inputs.map { row -> [row[0], row[2].groups, row[4], row[7]] })

    emit:
    members = inputs.join(SPLIT.out).flatMap { row -> members(row) } // the same rows, one per group, with its particle set
}

workflow GATHERED {
    take:
    parts // [meta of a member, job]

    main:
    gathered = parts
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['group', 'groups']) }, meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }

    emit:
    jobs = gathered // [meta, jobs in the order of the groups]
}

def members(row) {
    def groups = row[-1] instanceof List ? row[-1] : [row[-1]]
    return groups.withIndex().collect { group, index -> [row[0] + [group: index + 1, groups: groups.size()]] + row[1..6] + [group] + row[8..<-1] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
